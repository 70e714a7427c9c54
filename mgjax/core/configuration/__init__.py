"""Reads configuration files, checks their keys, and renames those of earlier releases."""
