"""Import, export, average and publish weights; model cards."""
