"""Signs media files and says who made them (C2PA)."""
