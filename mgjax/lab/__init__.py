"""Measures, plans, curates and reports. Knows the library by its public contracts."""
