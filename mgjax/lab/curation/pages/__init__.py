"""The page that shows what curation kept and dropped."""
