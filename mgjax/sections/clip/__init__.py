"""Trains and opens a CLIP."""
