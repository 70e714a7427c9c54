"""Wan 2.1 and 2.2, text-to-video models with open weights (arXiv 2503.20314)."""
