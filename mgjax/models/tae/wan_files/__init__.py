"""Files of Wan's autoencoders, by the names of diffusers and of the original code."""
