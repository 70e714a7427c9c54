"""Metrics of arrays: Fréchet distance, similarity, motion, seams, audio."""
