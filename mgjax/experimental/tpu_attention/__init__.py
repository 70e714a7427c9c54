"""Attention kernels for TPUs that no TPU has run: checked by the interpreter and by compilation."""
