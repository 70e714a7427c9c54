"""The spatial upsampler (Movie Gen §3.1.5) and the degradations that it learns to undo."""
