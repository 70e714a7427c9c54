"""Networks as functions of arrays: no files, no data, no training."""
