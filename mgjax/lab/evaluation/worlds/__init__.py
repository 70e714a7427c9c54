"""Evaluations by the judge of the synthetic dataset that a model was trained on."""
