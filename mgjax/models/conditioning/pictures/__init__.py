"""How the published image-to-video models of Wan read pictures (arXiv 2503.20314)."""
