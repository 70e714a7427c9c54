"""Text to video and images (Movie Gen §3.1 to §3.4)."""
