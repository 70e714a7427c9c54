"""Memory and latency of sampling."""
