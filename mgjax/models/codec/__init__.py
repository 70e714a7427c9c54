"""The 48 kHz audio codec (Movie Gen §6.2): a one-dimensional DAC-VAE."""
