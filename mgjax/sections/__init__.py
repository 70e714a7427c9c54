"""The trainable parts of Movie Gen, a folder each: what is trained, and how it is sampled."""
