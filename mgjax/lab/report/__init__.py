"""Tables, charts and pages in HTML."""
