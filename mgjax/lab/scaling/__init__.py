"""Scaling laws and comparisons of architectures by them (Movie Gen §3.6)."""
