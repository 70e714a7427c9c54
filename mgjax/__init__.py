"""mgjax: Movie Gen (arXiv 2410.13720) in JAX and Flax."""

__version__ = '0.1.0'
