"""Optimizers, their schedules and rates by name (Movie Gen §3.2.2)."""
