"""Serves pages for people: votes about pairs of videos (Movie Gen §3.5), review of clips (§3.3)."""
