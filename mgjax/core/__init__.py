"""Types, settings, errors and files. Imports nothing else of mgjax."""
