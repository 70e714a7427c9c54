"""Evaluations whose judge is the synthetic dataset of the model."""
