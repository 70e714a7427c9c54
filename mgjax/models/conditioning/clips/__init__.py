"""Conditions that are latents of clips."""
