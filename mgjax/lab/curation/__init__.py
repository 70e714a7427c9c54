"""Raw videos to a training set: scores, filters, engines, review (Movie Gen §3.2)."""
