"""Read videos, edits, pictures and sound of moving digits."""
