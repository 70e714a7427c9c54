"""Which clips stay: one filter a file."""
