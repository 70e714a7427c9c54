"""The files that an evaluation writes, and comparisons with earlier evaluations."""
