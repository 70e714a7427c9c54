"""Audio for videos (Movie Gen §6): the flow model, and the codec of its latents."""
