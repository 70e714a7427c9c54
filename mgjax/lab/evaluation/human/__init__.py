"""People compare two videos of a prompt: page, votes, and what they say (Movie Gen §3.5)."""
