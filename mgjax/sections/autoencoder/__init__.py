"""Trains and opens the temporal autoencoder (Movie Gen §3.1.1)."""
