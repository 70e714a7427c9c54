"""Reads and writes the weight files of other projects, tensor by tensor."""
