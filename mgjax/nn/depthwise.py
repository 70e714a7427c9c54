"""Depthwise convolutions of tokens on their grid, checked by tests/nn/test_depthwise.py."""

import itertools
import math
from collections.abc import Iterator

import flax.linen as nn
import jax.numpy as jnp

from mgjax.core.derivatives import with_backward
from mgjax.core.typing import Array, Float
from mgjax.nn.linear import parameter
from mgjax.nn.patch import Patch
from mgjax.parallel.rules import place_channels, place_tokens

TAPS = 3  # along t, h, w


def _identity(key, shape: tuple[int, ...], dtype) -> Array:
  """Initialises the taps to the identity."""
  return jnp.zeros(shape, dtype).at[1, 1, 1].set(1)


class Depthwise(nn.Module):
  """y_p = sum over offsets o of a 3 x 3 x 3 window of w_o * x_(p + o), channel by channel.

  Positions outside the grid are zero. Tokens behind the grid, which pad it for a mesh, are
  unchanged. It is initialised to the identity. A mesh that splits tokens exchanges them for
  channels, convolves each channel, and exchanges back: two all-to-alls, and no halo.

  Attributes:
    sizes: of the grid along t, h, w.
  """

  sizes: Patch
  dtype: jnp.dtype = jnp.float32

  @nn.compact
  def __call__(self, x: Float[Array, 'b n d']) -> Float[Array, 'b n d']:
    b, _, d = x.shape
    count = math.prod(self.sizes)
    axes = ('window', 'window', 'window', 'embed')
    shape = (TAPS, TAPS, TAPS, d)
    taps = parameter(self, 'taps', _identity, axes, shape).astype(self.dtype)
    x = place_channels(x)
    near = convolve(x[:, :count].reshape(b, *self.sizes, d), taps)
    y = jnp.concatenate([near.reshape(b, count, d), x[:, count:]], axis=1)
    return place_tokens(place_channels(y))


def _convolved(x: Float[Array, 'b t h w d'], taps: Float[Array, 'i j k d']) -> Array:
  """Returns y_p = sum over o of taps_o * x_(p + o), zero outside of the grid.

  It sums shifted arrays, which XLA fuses, because XLA's grouped convolutions are slow on CPUs. The
  gradients are written out: JAX's would keep 27 shifted arrays, pad 27 more and sum over positions
  in a way that XLA does not vectorise (docs/experiments/cpu_optimizations.md).
  """
  total = jnp.zeros_like(x)
  for offset, near in _shifted(x):
    total = total + near * taps[offset][None, None, None, None]
  return total


def _backward(residuals: tuple[Array, Array], y: Array) -> tuple[Array, Array]:
  x, taps = residuals
  d_taps = jnp.zeros_like(taps)
  ones = jnp.ones((1, y.size // y.shape[-1]), y.dtype)
  for offset, near in _shifted(x):
    total = ones @ (near * y).reshape(-1, y.shape[-1])
    d_taps = d_taps.at[offset].set(total[0])
  return _convolved(y, taps[::-1, ::-1, ::-1]), d_taps


convolve = with_backward(_convolved, _backward)


def _shifted(x: Array) -> Iterator[tuple[tuple[int, ...], Array]]:
  """Yields each offset of the window with its x_(p + o)."""
  grid = jnp.pad(x, ((0, 0), *((1, 1),) * 3, (0, 0)))
  # Along an axis of size 1 the outer taps multiply only zeros.
  steps = [range(TAPS) if size > 1 else (TAPS // 2,) for size in x.shape[1:4]]
  for offset in itertools.product(*steps):
    t, h, w = (slice(o, o + size) for o, size in zip(offset, x.shape[1:4], strict=True))
    yield offset, grid[:, t, h, w]
