"""Simulates weeks of a run with failures."""
