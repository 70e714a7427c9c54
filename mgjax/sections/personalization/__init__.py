"""Personalization: one picture of a person, and videos of them (Movie Gen §4)."""
