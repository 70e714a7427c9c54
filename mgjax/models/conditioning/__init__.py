"""What conditions a backbone: one Linen module in one file each."""
