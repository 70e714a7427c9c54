"""A training run: loop, step, optimizer, state, guard. Knows no model."""
