"""Ways to spread the work of curation: one process, or Ray."""
