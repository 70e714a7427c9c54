"""Clients of language models, and the rewriting of prompts (Movie Gen §3.4.1)."""
