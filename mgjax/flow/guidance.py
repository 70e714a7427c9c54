"""Classifier-free guidance for one condition or several (Movie Gen §3.4), checked by
tests/flow/test_guidance.py.
"""

from collections.abc import Callable, Iterable, Mapping

import jax
import jax.numpy as jnp
import numpy as np

from mgjax.core.typing import Array, Batch, Float, Predict
from mgjax.flow.solvers import Velocity

MakeVelocity = Callable[[Batch], Velocity]


def make_guided(
  predict: Predict, batch: Batch, scales: Mapping[str, float] | Iterable[tuple[str, float]]
) -> Velocity:
  """Makes the guided `velocity(x, time)` of a model under the conditions of a batch.

  With one condition of scale s, `v = v(0) + s (v(c) - v(0))`, where 0 is the dropped condition
  (the paper's scale is 7.5 for video, 3 for sound). With several, in the order of `scales`, nested
  as InstructPix2Pix and Emu Edit do:
  `v = v(0, 0) + s_1 (v(c_1, 0) - v(0, 0)) + s_2 (v(c_1, c_2) - v(c_1, 0))`.

  The terms are rows of one call of `predict`, b rows each, and a term without weight is not
  computed: a scale of 1 (or no scales) costs the conditional pass alone, a scale of 0 the
  unconditional one, and equal neighbours are dropped together. Conditionings of the batch that
  `scales` does not name are never dropped, and are absent from the `drop` that `predict` sees.

  Args:
    predict: `predict(x, time, batch, drop)`, a model with its parameters bound.
    batch: name -> array with the batch axis (b) first.
    scales: conditioning name -> scale, or pairs of them where the order matters (an
      `ml_collections.ConfigDict` iterates in alphabetical order).
  """
  scales = {name: float(scale) for name, scale in dict(scales).items()}
  # Pass k sees the first k conditions. Its weight in v is s_k - s_{k+1}, with s_0 = 1 and nothing
  # after the last; over the passes that are left, v telescopes with the same scales.
  bounded = (1.0, *scales.values(), 0.0)
  passes = [k for k in range(len(scales) + 1) if bounded[k] != bounded[k + 1]]
  stacked = jax.tree.map(lambda array: _repeat(array, len(passes)), batch)

  def velocity(x: Float[Array, 'b *axes'], time: Float[Array, ' b']) -> Float[Array, 'b *axes']:
    count = x.shape[0]
    drop = {
      name: jnp.tile(jnp.array([place >= k for k in passes]), count)
      for place, name in enumerate(scales)
    }
    terms = predict(_repeat(x, len(passes)), _repeat(time, len(passes)), stacked, drop)
    if len(passes) == 1:
      return terms
    # Differences of bfloat16 numbers, times 7.5, deserve float32.
    terms = terms.reshape(count, len(passes), *x.shape[1:])
    terms = terms.astype(jnp.promote_types(terms.dtype, jnp.float32))
    result = terms[:, 0]
    for place in range(1, len(passes)):
      result += bounded[passes[place]] * (terms[:, place] - terms[:, place - 1])
    return result

  return velocity


def _repeat(array: Array | np.ndarray, times: int) -> Array | np.ndarray:
  # Copies of a row stand side by side: a batch that is sharded over devices stays where it is.
  return array if times == 1 else jnp.repeat(array, times, axis=0)
