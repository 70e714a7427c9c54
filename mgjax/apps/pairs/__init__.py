"""Make pairs to train on: edits, references, preferences, degraded clips."""
