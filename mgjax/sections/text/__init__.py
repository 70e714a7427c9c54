"""Opens text encoders and tokenizers, and stores embeddings of prompts (Movie Gen §3.1.4)."""
