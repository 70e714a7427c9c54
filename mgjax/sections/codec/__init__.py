"""Trains and opens the audio codec (Movie Gen §6.2)."""
