"""Finds and compares faces in pictures."""
