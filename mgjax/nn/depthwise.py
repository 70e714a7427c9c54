"""Depthwise convolutions of tokens on their grid, checked by tests/backbone/test_frozen.py."""

import itertools
import math

import flax.linen as nn
import jax.numpy as jnp

from mgjax.core.typing import Array, Float
from mgjax.nn.linear import parameter
from mgjax.nn.patch import Patch
from mgjax.parallel.rules import place_channels, place_tokens

TAPS = 3  # along t, h, w


def _as_they_are(key, shape: tuple[int, ...], dtype) -> Array:
  """Initialises the taps to pass tokens on unchanged."""
  return jnp.zeros(shape, dtype).at[1, 1, 1].set(1)


class Depthwise(nn.Module):
  """y_p = sum over offsets o of a 3 x 3 x 3 window of w_o * x_(p + o), channel by channel.

  Places outside of the grid are zero; tokens behind it, which fill a mesh, stay as they are. It
  starts as the identity. On a mesh that splits tokens they are exchanged for channels, of which
  each is convolved by itself, and back: two all-to-alls, and no halo.

  As sums of shifted arrays, which XLA fuses: its grouped convolutions have no fast kernel on CPUs.

  Attributes:
    sizes: of the grid along t, h, w.
  """

  sizes: Patch
  dtype: jnp.dtype = jnp.float32

  @nn.compact
  def __call__(self, x: Float[Array, 'b n d']) -> Float[Array, 'b n d']:
    (b, _, d), count = x.shape, math.prod(self.sizes)
    axes, shape = ('window', 'window', 'window', 'embed'), (TAPS, TAPS, TAPS, d)
    taps = parameter(self, 'taps', _as_they_are, axes, shape).astype(self.dtype)
    x = place_channels(x)
    grid = jnp.pad(x[:, :count].reshape(b, *self.sizes, d), ((0, 0), *((1, 1),) * 3, (0, 0)))
    total = jnp.zeros((b, *self.sizes, d), x.dtype)
    # Along an axis of one place the outer taps meet nothing but zeros.
    steps = [range(TAPS) if size > 1 else (TAPS // 2,) for size in self.sizes]
    for offset in itertools.product(*steps):
      ends = [start + size for start, size in zip(offset, self.sizes, strict=True)]
      t, h, w = (slice(*each) for each in zip(offset, ends, strict=True))
      total = total + grid[:, t, h, w] * taps[offset][None, None, None, None]
    y = jnp.concatenate([total.reshape(b, count, d), x[:, count:]], axis=1)
    return place_tokens(place_channels(y))
