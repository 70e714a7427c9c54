"""Video editing by instruction (Movie Gen §5)."""
