"""Intervals, correlations and values with their uncertainty."""
