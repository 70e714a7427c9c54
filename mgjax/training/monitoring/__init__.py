"""Signals, watchdog, goodput, metrics and trackers of a run."""
