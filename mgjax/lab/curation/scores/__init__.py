"""Numbers that clips are filtered by: one score a file."""
