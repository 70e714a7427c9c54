"""Read videos, edits, pictures and sound of solids."""
