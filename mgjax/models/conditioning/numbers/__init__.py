"""Conditions that are one number, added to the embedding of time."""
