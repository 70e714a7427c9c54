"""The DiT-adapted Llama transformer (Movie Gen §3.1.3). It sees conditions through ports only."""
