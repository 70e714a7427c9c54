"""Synthetic datasets with captions, labels, sound and judges."""
