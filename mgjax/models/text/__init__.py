"""Text encoders, tokenizers and vocabularies (Movie Gen §3.1.4)."""
