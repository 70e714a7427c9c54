"""Prompt suites: what models are asked for when they are compared, and videos of them by index."""
