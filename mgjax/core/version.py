"""The version of mgjax."""

__version__ = '0.4.0'
