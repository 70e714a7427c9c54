"""Reads compiled programs: collectives, memory, placement."""
