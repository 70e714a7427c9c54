"""The files that an evaluation leaves, and comparisons with earlier ones."""
