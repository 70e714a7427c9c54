"""Rotary position embedding along t, h, w, and exact waves of the time, as Wan has them."""

import math
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np

from mgjax.core.typing import Array, Float

THETA = 10_000.0
_BITS = 12  # of a time and of a frequency whose product is exact in float32


class Rotation(NamedTuple):
  """The cosine and sine of the angle of each pair of features of a head, for each token."""

  cos: Float[Array, 'n k']
  sin: Float[Array, 'n k']


def make_rotation(sizes: tuple[int, int, int], head_size: int) -> Rotation:
  """Returns the rotation of tokens on a grid (t, h, w), ordered by t, then h, then w.

  A third of the pairs of a head turns with h, a third with w, and the rest with t. On an axis with
  k features the angle of pair i at position p is p theta^(-2 i / k). Tables are float64, rounded
  once to float32.
  """
  side = 2 * (head_size // 6)
  angles = []
  for axis, (size, width) in enumerate(zip(sizes, (head_size - 2 * side, side, side), strict=True)):
    frequencies = THETA ** (-np.arange(0, width, 2) / width)
    along = np.outer(np.arange(size), frequencies)
    shape = [1, 1, 1, len(frequencies)]
    shape[axis] = size
    angles.append(np.broadcast_to(along.reshape(shape), (*sizes, len(frequencies))))
  table = np.concatenate(angles, axis=-1).reshape(math.prod(sizes), -1)
  return Rotation(jnp.asarray(np.cos(table), jnp.float32), jnp.asarray(np.sin(table), jnp.float32))


def rotate(x: Float[Array, 'b n g k'], rotation: Rotation) -> Float[Array, 'b n g k']:
  """Rotates neighbouring pairs (x_2i, x_2i+1) of every head, in float32."""
  pairs = x.astype(jnp.float32).reshape(*x.shape[:-1], -1, 2)
  first, second = pairs[..., 0], pairs[..., 1]
  cos, sin = (table[None, :, None] for table in rotation)
  rotated = jnp.stack([first * cos - second * sin, first * sin + second * cos], axis=-1)
  return rotated.reshape(x.shape).astype(x.dtype)


def waves(time: Float[Array, ' b'], count: int) -> Float[Array, 'b k']:
  """Returns [cos(time w_i), sin(time w_i)] with w_i = 10000^(-i / (count / 2)), exact to 1e-6.

  A product such as 1000 w_i has an error of 6e-5 in float32. Here w_i / (2 pi) is split into a part
  of 12 bits and a rest, and so is the time. The product of the two large parts is exact, and its
  complete turns are subtracted before anything is rounded.
  """
  turns = THETA ** (-np.arange(count // 2) / (count // 2)) / (2 * np.pi)
  step = 2.0 ** (np.floor(np.log2(turns)) - (_BITS - 1))
  large = np.floor(turns / step) * step
  time = time[:, None]
  coarse = jnp.round(4 * time) / 4
  large, small, all_bits = (
    jnp.asarray(numbers, jnp.float32)[None] for numbers in (large, turns - large, turns)
  )
  rest = coarse * small + (time - coarse) * all_bits
  exact = coarse * large
  angles = 2 * np.pi * (exact - jnp.round(exact) + rest)
  return jnp.concatenate([jnp.cos(angles), jnp.sin(angles)], axis=-1)
