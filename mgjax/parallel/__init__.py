"""Device meshes, the table of shardings, ring and Ulysses attention (Movie Gen §3.1.6)."""
