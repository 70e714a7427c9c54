"""What people decided about clips, and what follows from it."""
