"""Personalization: one picture of somebody, and videos of them (Movie Gen §4)."""
