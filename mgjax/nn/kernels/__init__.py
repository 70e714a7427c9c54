"""Attention kernels and the protocol that they share."""
