"""The version of mgjax."""

__version__ = '0.3.0'
