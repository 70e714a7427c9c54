"""Classifier-free guidance for one condition or several (Movie Gen §3.4), checked by
tests/flow/test_guidance.py.
"""

import itertools
from collections.abc import Callable, Mapping

import jax
import jax.numpy as jnp
import numpy as np

from mgjax.core.errors import ConfigError
from mgjax.core.settings import Finite, Fraction
from mgjax.core.typing import Array, Batch, Drop, Float, Predict
from mgjax.flow.solvers import Velocity

MakeVelocity = Callable[[Batch], Velocity]
# s and [low, high): the scale at flow times in an interval.
Interval = tuple[Finite, tuple[Fraction, Fraction]]
# A number; or an interval or several: 1 outside of them.
_Scale = Finite | tuple[Interval, ...] | Interval
Guidance = tuple[tuple[str, _Scale], ...]
# The same, but a scale may also be an array: one a row, not known at compile time.
Scales = tuple[tuple[str, _Scale | Float[Array, ' b']], ...]


def make_guided(
  predict: Predict,
  batch: Batch,
  guidance: Scales,
  negative: Mapping[str, Batch] = {},
  read: Callable[[Batch, Drop], Batch] = lambda batch, drop: batch,
) -> Velocity:
  """Makes the guided `velocity(x, time)` of a model under the conditions of a batch.

  With one condition of scale s, `v = v(0) + s (v(c) - v(0))`, where 0 is the dropped condition
  (the paper's scale is 7.5 for video, 3 for sound). With several, in the order of `guidance`,
  `v = v(0, 0) + s_1 (v(c_1, 0) - v(0, 0)) + s_2 (v(c_1, c_2) - v(c_1, 0))`,
  as in InstructPix2Pix and Emu Edit, with the source first, then the text. A scale may apply only
  in an interval of flow time and be 1 outside (Kynkäänniemi et al. 2024). There may be several
  intervals, as Wan 2.2 has a scale for each of its experts.

  The terms are rows of one call of `predict`, b rows each, and terms without weight are not
  computed. A scale of 1 (or no guidance) costs only the conditional pass, a scale of 0 only the
  unconditional one, and conditions with equal neighbouring scales are dropped together. Outside of
  all intervals only the terms for a scale of 1 are computed. Conditionings that `guidance` does not
  name are never dropped, and are absent from the `drop` that `predict` sees.

  Args:
    predict: `predict(x, time, batch, drop)`, a model with its parameters bound.
    batch: name -> array with the batch axis (b) first.
    guidance: pairs of a conditioning's name and its scale, from the outermost to the innermost; an
      array (b,) has one scale a row, and is equal to no other scale but itself.
    negative: arrays of the batch by the name of their conditioning, which replace a dropped
      condition: guidance then leads away from them.
    read: maps rows and their `drop` to the `batch` of `predict`. It is called once, so that values
      that do not depend on x and time are not computed at every step.

  Raises:
    ConfigError: as `check_guidance`.
  """
  check_guidance(guidance)
  velocity = _make_nested(predict, batch, guidance, negative, read)
  intervals = [edges for _, scale in guidance for _, edges in intervals_of(scale)]
  if not intervals:
    return velocity
  ones = tuple((name, 1.0 if intervals_of(scale) else scale) for name, scale in guidance)
  plain = _make_nested(predict, batch, ones, negative, read)

  def either(x: Float[Array, 'b *axes'], time: Float[Array, ' b']) -> Float[Array, 'b *axes']:
    inside = jnp.stack([(low <= time) & (time < high) for low, high in intervals])
    branches = [lambda x, time, v=v: v(x, time).astype(x.dtype) for v in (velocity, plain)]
    return jax.lax.cond(jnp.any(inside), *branches, x, time)

  return either


def intervals_of(scale: _Scale | Float[Array, ' b']) -> tuple[Interval, ...]:
  """Returns the intervals of a scale, () of one that holds at all times."""
  if not isinstance(scale, tuple):
    return ()
  return scale if isinstance(scale[0], tuple) else (scale,)  # pyright: ignore[reportReturnType]


def check_guidance(guidance: Scales) -> None:
  """Checks that scales can be nested in their order.

  A scale of 0 drops its condition from every term only if all that follow are 0 too: the terms of
  those are differences of velocities that see it. Raises ConfigError if a condition is named twice,
  an interval is empty, two of one condition overlap, or a 0 stands before another scale.
  """
  names = [name for name, _ in guidance]
  for name, scale in guidance:
    if names.count(name) > 1:
      raise ConfigError(f'guidance names {name!r} twice; give every condition one scale')
    intervals = sorted(edges for _, edges in intervals_of(scale))
    for low, high in intervals:
      if not low < high:
        raise ConfigError(
          f'guidance of {name!r} holds from {low:g} to {high:g}, at no time; expected an interval '
          'of flow time that begins before it ends, as in (0.2, 0.8)'
        )
    for (_, end), (begin, _) in itertools.pairwise(intervals):
      if begin < end:
        raise ConfigError(
          f'guidance of {name!r} has two scales from {begin:g} to {end:g}; expected intervals of '
          'flow time that do not overlap'
        )
  for scales in _scales_over_time(guidance):
    for (name, scale), (other, after) in itertools.pairwise(zip(names, scales, strict=True)):
      if scale == 0 and after != 0:
        raise ConfigError(
          f'guidance of {name!r} is 0, but {other!r} after it has {after:g}, and what it adds is '
          f'measured with {name!r} in sight: put {name!r} last to drop it, or give it 1 to see it '
          'without guidance'
        )


def _make_nested(
  predict: Predict,
  batch: Batch,
  guidance: Scales,
  negative: Mapping[str, Batch],
  read: Callable[[Batch, Drop], Batch],
) -> Velocity:
  # Pass k sees the first k conditions. Its weight in v is s_k - s_{k+1}, with s_0 = 1 and 0 after
  # the last. Over the passes with a weight, v telescopes with the same scales.
  bounded = [(1.0, *scales, 0.0) for scales in _scales_over_time(guidance)]
  passes = [k for k in range(len(guidance) + 1) if any(s[k] != s[k + 1] for s in bounded)]
  stacked = jax.tree.map(lambda array: _repeat(array, len(passes)), batch)
  unseen = {
    name: np.array([index >= k for k in passes]) for index, (name, _) in enumerate(guidance)
  }
  for name in negative.keys() & unseen.keys():
    for key, away in negative[name].items():
      rows = jnp.tile(unseen[name], len(away)).reshape(-1, *[1] * (away.ndim - 1))
      stacked[key] = jnp.where(rows, _repeat(away, len(passes)), stacked[key])

  def drop(count: int) -> Drop:
    return {name: jnp.tile(rows & (name not in negative), count) for name, rows in unseen.items()}

  if batch:
    stacked = read(stacked, drop(len(jax.tree.leaves(batch)[0])))

  def velocity(x: Float[Array, 'b *axes'], time: Float[Array, ' b']) -> Float[Array, 'b *axes']:
    count = x.shape[0]
    terms = predict(_repeat(x, len(passes)), _repeat(time, len(passes)), stacked, drop(count))
    if len(passes) == 1:
      return terms
    # Differences of bfloat16 numbers, times 7.5, need float32.
    terms = terms.reshape(count, len(passes), *x.shape[1:])
    terms = terms.astype(jnp.promote_types(terms.dtype, jnp.float32))
    result = terms[:, 0]
    for index in range(1, len(passes)):
      scale = _scale_of_rows(guidance[passes[index] - 1][1], time, x.ndim)
      result += scale * (terms[:, index] - terms[:, index - 1])
    return result

  return velocity


def _scales_over_time(guidance: Scales) -> list[list[float]]:
  """Returns the scales at every time where one may change: 0 and the ends of intervals."""
  scales = [scale for _, scale in guidance]
  edges = {0.0, *(time for scale in scales for _, edges in intervals_of(scale) for time in edges)}
  return [[_scale_at(scale, time) for scale in scales] for time in sorted(edges)]


def _scale_at(scale: _Scale | Float[Array, ' b'], time: float) -> float:
  if isinstance(scale, jax.Array):
    return float(id(scale))  # equal only to itself, so that its term is never left out
  if not isinstance(scale, tuple):
    return float(scale)
  inside = (value for value, (low, high) in intervals_of(scale) if low <= time < high)
  return float(next(inside, 1.0))


def _scale_of_rows(
  scale: _Scale | Float[Array, ' b'], time: Float[Array, ' b'], ndim: int
) -> float | Array:
  if isinstance(scale, jax.Array):
    return scale.reshape(-1, *[1] * (ndim - 1))
  if not isinstance(scale, tuple):
    return float(scale)
  rows = jnp.ones_like(time)
  for value, (low, high) in intervals_of(scale):
    rows = jnp.where((low <= time) & (time < high), value, rows)
  return rows.reshape(-1, *[1] * (ndim - 1))


def _repeat(array: Array | np.ndarray, times: int) -> Array | np.ndarray:
  # Copies of a row are adjacent, so that a sharded batch stays on its devices.
  return array if times == 1 else jnp.repeat(array, times, axis=0)
