"""The 2.5D convolutions: over one frame, and over time at one place (Movie Gen §3.1.1)."""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp

from mgjax.core.typing import Array, Float
from mgjax.nn.linear import FAN_IN, ZEROS, parameter, weight
from mgjax.parallel.gather import Local, weighted


class SpatialConv(nn.Module):
  """A 2D convolution of every frame by itself, with bias.

  Stride 1 keeps the size (zero padding); stride 2 pads one row and one column at the far ends and
  halves the size, as the image autoencoder of Rombach et al. does.
  """

  features: int
  window: int = 3
  stride: int = 1
  initializer: jax.nn.initializers.Initializer = FAN_IN
  dtype: jnp.dtype = jnp.float32

  @nn.compact
  def __call__(self, x: Float[Array, 'b t h w c']) -> Float[Array, 'b t i j o']:
    shape = (self.window, self.window, x.shape[-1], self.features)
    axes = ('window', 'window', 'channels_in', 'channels')
    kernel = weight(self, self.initializer, axes, shape)
    bias = parameter(self, 'bias', ZEROS, ('channels',), (self.features,))
    edge = (0, 1) if self.stride == 2 else (self.window // 2, self.window // 2)
    (y,) = weighted(_spatial(self.stride, edge), x, (kernel,), axes, jnp.dtype(self.dtype))
    return y + bias[None, None, None, None].astype(self.dtype)


def centred(key, shape: tuple[int, ...], dtype) -> Array:
  """Initialises a temporal kernel (taps, in, out) to pass the present frame on unchanged.

  With it a video model made from an image model equals that model frame by frame.
  """
  del key
  taps, inputs, outputs = shape
  return jnp.zeros(shape, dtype).at[taps // 2].set(jnp.eye(inputs, outputs, dtype=dtype))


class TemporalConv(nn.Module):
  """A 1D convolution over time at every place, with bias, starting as the identity.

  Symmetric replicate padding: the first and last frames are repeated, and the model is not causal
  (Movie Gen §3.1.1). Stride 2 gives ceil(t / 2) frames, so any length works, one frame included.
  """

  features: int
  window: int = 3
  stride: int = 1
  initializer: jax.nn.initializers.Initializer = centred
  dtype: jnp.dtype = jnp.float32

  @nn.compact
  def __call__(self, x: Float[Array, 'b t h w c']) -> Float[Array, 'b u h w o']:
    axes = ('window', 'channels_in', 'channels')
    kernel = weight(self, self.initializer, axes, (self.window, x.shape[-1], self.features))
    bias = parameter(self, 'bias', ZEROS, ('channels',), (self.features,))
    dtype, edge = jnp.dtype(self.dtype), self.window // 2
    (y,) = weighted(_temporal(self.stride), x, (kernel,), axes, dtype, edge)
    return y + bias[None, None, None, None].astype(self.dtype)


@functools.cache
def _spatial(stride: int, edge: tuple[int, int]) -> Local:
  def convolve(x: Array, kernel: Array) -> tuple[Array]:
    b, t, *image = x.shape
    y = jax.lax.conv_general_dilated(
      x.reshape(b * t, *image),
      kernel,
      window_strides=(stride, stride),
      padding=(edge, edge),
      dimension_numbers=('NHWC', 'HWIO', 'NHWC'),
    )
    return (y.reshape(b, t, *y.shape[1:]),)

  return convolve


@functools.cache
def _temporal(stride: int) -> Local:
  def convolve(x: Array, kernel: Array) -> tuple[Array]:
    b, t, h, w, c = x.shape
    # As a 2D convolution over (time, place) with a window of (taps, 1): the form that every
    # backend has a fast kernel for.
    y = jax.lax.conv_general_dilated(
      x.reshape(b, t, h * w, c),
      kernel[:, None],
      window_strides=(stride, 1),
      padding=((0, 0), (0, 0)),
      dimension_numbers=('NHWC', 'HWIO', 'NHWC'),
    )
    return (y.reshape(b, -1, h, w, y.shape[-1]),)

  return convolve


def nearest(x: Float[Array, 'b t h w c'], factors: tuple[int, int, int]) -> Array:
  """Repeats every frame, row and column: nearest-neighbour upsampling along t, h, w."""
  for axis, factor in enumerate(factors, start=1):
    if factor > 1:
      x = jnp.repeat(x, factor, axis=axis)
  return x
