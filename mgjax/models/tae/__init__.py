"""The temporal autoencoder (Movie Gen §3.1.1): layers, losses, tiling, image inflation."""
