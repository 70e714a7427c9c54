"""Averages of parameters: along one run, and over several."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp

from mgjax.core.errors import ConfigError
from mgjax.core.typing import Array, Tree


def start_average(params: Tree) -> Tree:
  """The average before the first step: a float32 copy that shares no buffer with `params`."""
  return jax.tree.map(lambda p: jnp.array(p, jnp.float32, copy=True), params)


def update_average(average: Tree, params: Tree, decay: float, step: Array | int) -> Tree:
  """The exponential moving average after one more step.

    a <- a + (1 - d) (p - a),    d = min(decay, (1 + s) / (10 + s))

  While the run is young d is smaller than `decay`, so that the average spans about the last tenth
  of it and soon forgets the initial parameters. Movie Gen Audio averages with decay 0.999 (§6);
  the warm-up of the decay is not in public sources.

  Args:
    average: a, float32.
    params: p, the parameters after the step, of the same structure.
    decay: how much of the average stays, in [0, 1).
    step: s, the number of steps done before this one.

  Returns:
    The new average, float32.
  """
  step = jnp.asarray(step, jnp.float32)
  gain = 1 - jnp.minimum(decay, (1 + step) / (10 + step))
  return jax.tree.map(lambda a, p: a + gain * (p.astype(jnp.float32) - a), average, params)


def mean_params(trees: Sequence[Tree], weights: Sequence[float] | None = None) -> Tree:
  """The weighted mean of the parameters of several runs.

    p = sum_i weight_i p_i / sum_i weight_i

  Movie Gen averages models fine-tuned with different data, hyper-parameters and pre-trained
  checkpoints (§3.3); its weights are not in public sources.

  Args:
    trees: parameters of equal structure and shapes.
    weights: one for each tree, by default all the same.

  Returns:
    The mean, float32.

  Raises:
    ConfigError: no trees, or weights that do not fit.
  """
  weights = [1.0] * len(trees) if weights is None else list(weights)
  if not trees or len(weights) != len(trees) or not sum(weights) > 0:
    raise ConfigError(
      f'cannot average {len(trees)} sets of parameters with weights {weights}; expected at least'
      ' one set, a weight for each, and a sum above 0'
    )
  shares = [weight / sum(weights) for weight in weights]
  return jax.tree.map(
    lambda *leaves: sum(s * p.astype(jnp.float32) for s, p in zip(shares, leaves, strict=True)),
    *trees,
  )
