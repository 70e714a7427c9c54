"""The exponential moving average of the parameters (EMA), of which samples are made."""

import jax
import jax.numpy as jnp

from mgjax.core.typing import Array, Tree
from mgjax.training.optimizers.rates import is_masked


def start_average(params: Tree) -> Tree:
  """The average before the first step: a float32 copy that shares no buffer with `params`."""
  return jax.tree.map(lambda p: jnp.array(p, jnp.float32, copy=True), params)


def update_average(average: Tree, params: Tree, decay: float, step: Array | int) -> Tree:
  """The exponential moving average after one more step, float32.

    a <- a + (1 - d) (p - a),    d = min(decay, (1 + s) / (10 + s))

  While the run is young d is smaller than `decay`, so that the average spans about the last tenth
  of it and soon forgets the initial parameters. Movie Gen Audio averages with decay 0.999 (§6);
  the warm-up of the decay is not in public sources.

  `step` is s, the number of steps done before this one, `params` are p after it. The average of
  what is masked, frozen parameters, stays: it has been those parameters from the beginning.
  """
  step = jnp.asarray(step, jnp.float32)
  gain = 1 - jnp.minimum(decay, (1 + step) / (10 + step))

  def after(p: Tree, a: Array) -> Array:
    return a if is_masked(p) else a + gain * (p.astype(jnp.float32) - a)

  return jax.tree.map(after, params, average, is_leaf=is_masked)
