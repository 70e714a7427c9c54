"""States and work directories on disk, exported and published weights."""
