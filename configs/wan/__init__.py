"""Wan 2.1 and 2.2 (Wan Team 2025, arXiv 2503.20314): models that start from published weights."""
