"""What every flow model shares: build, objectives, sampling, likelihoods, FLOPs."""
