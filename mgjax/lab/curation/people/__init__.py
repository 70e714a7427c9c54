"""Clips of one person, with reference pictures (Movie Gen §4.2)."""
