"""Sound (Movie Gen §6): the codec between sound and latents."""
