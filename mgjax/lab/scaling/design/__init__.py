"""Which runs to make: ladders of sizes, grids of compute, cost, precision."""
