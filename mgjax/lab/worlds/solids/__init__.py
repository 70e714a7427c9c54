"""Lit solids that roll, fall and meet, rendered in JAX."""
