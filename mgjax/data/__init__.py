"""From files or synthetic datasets to batches as a function of the step (Movie Gen §3.2)."""
