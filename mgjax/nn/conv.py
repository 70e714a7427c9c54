"""Convolutions over a frame, over time (Movie Gen §3.1.1), and over both at once."""

import functools
import itertools

import flax.linen as nn
import jax
import jax.numpy as jnp

from mgjax.core.typing import Array, Float, Key
from mgjax.nn.linear import FAN_IN, ZEROS, Init, parameter, weight
from mgjax.parallel.gather import Local, weighted

# The padding of windows of two taps, whose edges are concatenated to their input: on a CPU the
# gradient of an even window that is padded on both sides takes 30 times as long.
WITHIN = ((0, 0), (0, 0))
_Frames = tuple[Array, Array, Array]  # before, of, and after a video or a device's piece of it


class SpatialConv(nn.Module):
  """A 2D convolution of every frame by itself, with bias.

  Stride 1 keeps the size (zero padding); stride 2 pads one row and one column at the far ends and
  halves the size, as the image autoencoder of Rombach et al. does. With `upsample` every row and
  column is first repeated, nearest-neighbour upsampling, and the window is 3.
  """

  features: int
  window: int = 3
  stride: int = 1
  upsample: bool = False
  initializer: jax.nn.initializers.Initializer = FAN_IN
  dtype: jnp.dtype = jnp.float32

  @nn.compact
  def __call__(self, x: Float[Array, 'b t h w c']) -> Float[Array, 'b t i j o']:
    shape = (self.window, self.window, x.shape[-1], self.features)
    axes = ('window', 'window', 'channels_in', 'channels')
    kernel = weight(self, self.initializer, axes, shape)
    bias = parameter(self, 'bias', ZEROS, ('channels',), (self.features,))
    local = _spatial_upsampled if self.upsample else _spatial(self.window, self.stride)
    (y,) = weighted(local, x, (kernel,), axes, jnp.dtype(self.dtype))
    return y + bias[None, None, None, None].astype(self.dtype)


def centred(key: Key | None, shape: tuple[int, ...], dtype: jnp.dtype) -> Array:
  """Initialises a temporal kernel (taps, in, out) to pass the present frame on unchanged.

  With it a video model made from an image model equals that model frame by frame.
  """
  taps, inputs, outputs = shape
  return jnp.zeros(shape, dtype).at[taps // 2].set(jnp.eye(inputs, outputs, dtype=dtype))


class TemporalConv(nn.Module):
  """A 1D convolution over time at every position, with bias, initialised to the identity.

  Symmetric replicate padding: the first and last frames are repeated, and the model is not causal
  (Movie Gen §3.1.1). Stride 2 gives ceil(t / 2) frames, so any length works, one frame included.
  With `upsample` every frame is first repeated, and the window is 3.
  """

  features: int
  window: int = 3
  stride: int = 1
  upsample: bool = False
  initializer: Init = centred
  dtype: jnp.dtype = jnp.float32

  @nn.compact
  def __call__(self, x: Float[Array, 'b t h w c']) -> Float[Array, 'b u h w o']:
    axes = ('window', 'channels_in', 'channels')
    kernel = weight(self, self.initializer, axes, (self.window, x.shape[-1], self.features))
    bias = parameter(self, 'bias', ZEROS, ('channels',), (self.features,))
    dtype = jnp.dtype(self.dtype)
    edge = self.window // 2
    local = _temporal_upsampled if self.upsample else _temporal(self.stride)
    (y,) = weighted(local, x, (kernel,), axes, dtype, edge)
    return y + bias[None, None, None, None].astype(self.dtype)


class VolumeConv(nn.Module):
  """A 3 x 3 x 3 convolution with bias, of stride 1, initialised as a 2D one of the present frame.

  Frames beyond both ends are copies of the first and last one, and positions beyond the edges are
  zero, as in its 2.5D twin. With `upsample` = (frames, rows) these are repeated first.
  """

  features: int
  upsample: tuple[bool, bool] = (False, False)
  initializer: jax.nn.initializers.Initializer = FAN_IN
  dtype: jnp.dtype = jnp.float32

  @nn.compact
  def __call__(self, x: Float[Array, 'b t h w c']) -> Float[Array, 'b u i j o']:
    axes = ('window', 'window', 'window', 'channels_in', 'channels')

    def present(key: Key, shape: tuple[int, ...], dtype: jnp.dtype) -> Array:
      return jnp.zeros(shape, dtype).at[1].set(self.initializer(key, shape[1:], dtype))

    kernel = weight(self, present, axes, (3, 3, 3, x.shape[-1], self.features))
    bias = parameter(self, 'bias', ZEROS, ('channels',), (self.features,))
    (y,) = weighted(_volume(*self.upsample), x, (kernel,), axes, jnp.dtype(self.dtype), 1)
    return y + bias[None, None, None, None].astype(self.dtype)


def folded(kernel: Array, axis: int) -> tuple[Array, Array]:
  """Folds three taps w along `axis`, applied to a sequence with every element repeated, into two.

  y_j = sum_k w_k r_(j+k-1) with r_2i = r_(2i+1) = x_i is

    y_2i     = w_0 x_(i-1) + (w_1 + w_2) x_i
    y_(2i+1) = (w_0 + w_1) x_i + w_2 x_(i+1)

  Two kernels of two taps each, on half the elements, replace three taps on all: 2/3 of the products
  along each axis.
  """
  first, middle, last = jnp.split(kernel, 3, axis)
  even = (first, middle + last)
  odd = (first + middle, last)
  return jnp.concatenate(even, axis), jnp.concatenate(odd, axis)


def _interleave(y: Array, axis: int) -> Array:
  """Merges the results of `folded` kernels on n + 2 elements into 2 n along `axis`.

  There are n + 1 results. The last axis but one holds those of the even kernel, of which the last
  is dropped, and those of the odd kernel, of which the first is dropped.
  """
  count = y.shape[axis] - 1
  pairs = [
    jax.lax.slice_in_dim(y[..., parity, :], parity, parity + count, axis=axis) for parity in (0, 1)
  ]
  y = jnp.stack(pairs, axis + 1)
  return y.reshape(*y.shape[:axis], 2 * count, *y.shape[axis + 2 :])


def _convolve(x: Array, kernel: Array, stride: tuple[int, int], edges) -> Array:
  return jax.lax.conv_general_dilated(
    x, kernel, stride, edges, dimension_numbers=('NHWC', 'HWIO', 'NHWC')
  )


@functools.cache
def _spatial(window: int, stride: int) -> Local:
  edge = (0, 1) if stride == 2 else (window // 2, window // 2)

  def convolve(x: Array, kernel: Array) -> tuple[Array]:
    if window == 1:  # a CPU runs a 1 x 1 convolution on one thread, and a product on all
      return (x @ kernel[0, 0],)
    b, t, *image = x.shape
    y = _convolve(x.reshape(b * t, *image), kernel, (stride, stride), (edge, edge))
    return (y.reshape(b, t, *y.shape[1:]),)

  return convolve


def _spatial_upsampled(x: Array, kernel: Array) -> tuple[Array]:
  b, t, h, w, _ = x.shape
  kernels = [columns for rows in folded(kernel, 0) for columns in folded(rows, 1)]
  kernel = jnp.concatenate(kernels, axis=-1)
  x = jnp.pad(x.reshape(b * t, *x.shape[2:]), ((0, 0), (1, 1), (1, 1), (0, 0)))
  y = _convolve(x, kernel, (1, 1), WITHIN)
  y = y.reshape(b, t, h + 1, w + 1, 2, -1)  # even rows, odd rows
  y = _interleave(y, 2)
  y = y.reshape(b, t, 2 * h, w + 1, 2, -1)  # even columns, odd columns
  return (_interleave(y, 3),)


@functools.cache
def _temporal(stride: int) -> Local:
  """Makes the convolution of (before, x, after), where the outer frames are the edges of x.

  It is a 2D convolution over (time, position) with a window of (taps, 1), for which every backend
  has a fast kernel. Products with the edges are added to the first and last results in place, so
  that x is not copied.
  """

  def convolve(frames: _Frames, kernel: Array) -> tuple[Array]:
    before, x, after = frames
    b, t, h, w, c = x.shape
    edge = before.shape[1]
    edges = ((edge, edge), (0, 0))
    y = _convolve(x.reshape(b, t, h * w, c), kernel[:, None], (stride, 1), edges)
    y = y.reshape(b, -1, h, w, y.shape[-1])
    for part, start in ((before, 0), (after, edge + t)):
      for frame, tap in itertools.product(range(edge), range(len(kernel))):
        index, remainder = divmod(start + frame - tap, stride)
        if not remainder and 0 <= index < y.shape[1]:
          y = y.at[:, index].add(part[:, frame] @ kernel[tap])
    return (y,)

  return convolve


def _temporal_upsampled(frames: _Frames, kernel: Array) -> tuple[Array]:
  x = jnp.concatenate(frames, axis=1)
  b, t, h, w, c = x.shape
  kernel = jnp.concatenate(folded(kernel, 0), axis=-1)[:, None]
  y = _convolve(x.reshape(b, t, h * w, c), kernel, (1, 1), WITHIN)
  return (_interleave(y.reshape(b, t - 1, h, w, 2, -1), 1),)  # even frames, odd frames


@functools.cache
def _volume(frames: bool, rows: bool) -> Local:
  """Makes the sum of three 2D convolutions, for which every backend has a fast kernel."""

  def convolve(pieces: _Frames, kernel: Array) -> tuple[Array]:
    x = jnp.concatenate(pieces, axis=1)
    x = jnp.repeat(jnp.repeat(x, 2, axis=2), 2, axis=3) if rows else x
    x = jnp.repeat(x, 2, axis=1)[:, 1:-1] if frames else x
    plane = _spatial(3, 1)
    count = x.shape[1] - 2
    first, middle, last = (plane(x[:, tap : tap + count], kernel[tap])[0] for tap in range(3))
    return (first + middle + last,)

  return convolve
