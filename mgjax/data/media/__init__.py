"""Reads and writes videos, audio and pictures."""
