"""The layers of the audio codec: snake, and convolutions with weight norm (Movie Gen §6)."""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp

from mgjax.core.typing import Array, Float, Key
from mgjax.nn.linear import ONES, ZEROS, parameter, weight
from mgjax.parallel.gather import Local, weighted

WINDOW = 7
DILATIONS = (1, 3, 9)  # of the residual units of a level
OUTPUTS, INPUTS = -1, -2  # axes of a kernel
# What published codecs start from: the truncated normal that their code asks for is lost, because
# weight norm computes the weight anew from g and v, which PyTorch had drawn before.
_FAN_IN = jax.nn.initializers.variance_scaling(1 / 3, 'fan_in', 'uniform')


def keep_variance(key: Key, shape: tuple[int, int, int], dtype: jnp.dtype) -> Array:
  """Initialises a transposed convolution's W (k i o) so that it keeps the variance of its input.

  Each sees two taps of i channels. PyTorch divides by all taps and the outputs instead: strides of
  8 and 10 then leave a hundredth of the variance, and a small codec that is trained on much silence
  never answers anything else.
  """
  draw = jax.nn.initializers.variance_scaling(1.0, 'fan_in', 'uniform')
  taps, inputs, outputs = shape
  return draw(key, (2, inputs, taps * outputs // 2), dtype).reshape(shape)  # all places are alike


def snake(x: Float[Array, '... c'], alpha: Float[Array, 'c']) -> Float[Array, '... c']:
  """Returns x + sin(alpha x)^2 / (alpha + 1e-9), in float32 inside (Ziyin et al. 2020)."""
  alpha = jnp.broadcast_to(alpha, x.shape).astype(jnp.float32)
  wide = x.astype(jnp.float32)
  return (wide + jnp.sin(alpha * wide) ** 2 / (alpha + 1e-9)).astype(x.dtype)


def weight_norm(
  kernel: Float[Array, '*k i o'], scale: Float[Array, 'n'], axis: int = OUTPUTS
) -> Float[Array, '*k i o']:
  """Returns g v / |v|, the norm over all axes but `axis` (Salimans and Kingma 2016).

  v is the kernel, g the scale. `axis` is OUTPUTS of a convolution, and INPUTS of a transposed one,
  because there they are the first axis of PyTorch's weights.
  """
  shape = [1] * kernel.ndim
  shape[axis] = len(scale)
  factor = scale / _norms(kernel, axis)
  return kernel * jnp.broadcast_to(factor.reshape(shape), kernel.shape)


def _norms(kernel: Array, axis: int) -> Array:
  others = tuple(other for other in range(kernel.ndim) if other != axis % kernel.ndim)
  return jnp.sqrt(jnp.sum(kernel**2, others))


class Snake(nn.Module):
  """`snake` with one alpha a channel, starting at 1."""

  @nn.compact
  def __call__(self, x: Float[Array, 'b s c']) -> Float[Array, 'b s c']:
    return snake(x, parameter(self, 'alpha', ONES, ('channels',), x.shape[-1:]))


class AudioConv(nn.Module):
  """A convolution over time, of an odd window, with weight norm and bias that keeps the length."""

  features: int
  window: int = WINDOW
  dilation: int = 1
  dtype: jnp.dtype = jnp.float32

  @nn.compact
  def __call__(self, x: Float[Array, 'b s c']) -> Float[Array, 'b s o']:
    return normalised(self, _make_convolve(self.dilation), x, (self.window,), self.features)


class DownConv(nn.Module):
  """A convolution of 2 r taps and stride r, r even, whose zeros are r / 2 at both ends.

  With x in frames of r samples, the first one beginning r / 2 samples early,

    y_j = W_0 x_j + W_1 x_(j+1)

  two products a result. On a CPU their gradient takes half the time of a strided convolution's.
  """

  features: int
  stride: int
  dtype: jnp.dtype = jnp.float32

  @nn.compact
  def __call__(self, x: Float[Array, 'b s c']) -> Float[Array, 'b t o']:
    return normalised(self, _down, x, (2 * self.stride,), self.features)


class UpConv(nn.Module):
  """The transposed convolution of 2 r taps and stride r, r even, without r / 2 at both ends.

  Each frame of r results sees two inputs, and no zeros are laid between the inputs:

    y_j = W_0 x_j + W_1 x_(j-1)
  """

  features: int
  stride: int
  dtype: jnp.dtype = jnp.float32

  @nn.compact
  def __call__(self, x: Float[Array, 'b t c']) -> Float[Array, 'b s o']:
    return normalised(self, _up, x, (2 * self.stride,), self.features, keep_variance, INPUTS)


class ResidualUnit(nn.Module):
  """x + conv_1(snake(conv_7(snake(x)))), the window of 7 dilated."""

  dilation: int
  dtype: jnp.dtype = jnp.float32

  @nn.compact
  def __call__(self, x: Float[Array, 'b s c']) -> Float[Array, 'b s c']:
    width = x.shape[-1]
    y = Snake(name='snake_1')(x)
    y = AudioConv(width, dilation=self.dilation, dtype=self.dtype, name='conv_1')(y)
    y = Snake(name='snake_2')(y)
    return x + AudioConv(width, 1, dtype=self.dtype, name='conv_2')(y)


def normalised(
  module: nn.Module,
  local: Local,
  x: Float[Array, 'b *n i'],
  window: tuple[int, ...],
  features: int,
  initializer: jax.nn.initializers.Initializer = _FAN_IN,
  axis: int = OUTPUTS,
) -> Float[Array, 'b *m o']:
  """Declares v, g and bias of a module with a `dtype`, and returns local(x, g v / |v|) + bias.

  `local` sees its own rows alone, and sound (b s c) as (b s 1 c); `axis` is that of `weight_norm`,
  and `initializer` that of v.
  """
  names = ('window',) * len(window) + ('channels_in', 'channels')
  shape = (*window, x.shape[-1], features)
  kernel = weight(module, initializer, names, shape)
  scale = parameter(
    module, 'scale', lambda *_: _norms(kernel, axis), (names[axis],), (shape[axis],)
  )
  bias = parameter(module, 'bias', ZEROS, ('channels',), (features,))
  dtype = jnp.dtype(module.dtype)
  # Sound with an axis more than tokens have: on a mesh rows are split, and time is not.
  flat = x.ndim == 3
  (y,) = weighted(
    local, x[:, :, None] if flat else x, (weight_norm(kernel, scale, axis),), names, dtype
  )
  y = y[:, :, 0] if flat else y
  return y + jnp.broadcast_to(bias.astype(dtype), y.shape)


@functools.cache
def _make_convolve(dilation: int) -> Local:
  def convolve(x: Array, kernel: Array) -> tuple[Array]:
    if len(kernel) == 1:  # a CPU gives such a convolution one thread, and a product all
      return (x @ kernel[0],)
    edge = dilation * (len(kernel) // 2)
    y = jax.lax.conv_general_dilated(
      x,
      kernel[:, None],
      (1, 1),
      ((edge, edge), (0, 0)),
      rhs_dilation=(dilation, 1),
      dimension_numbers=('NHWC', 'HWIO', 'NHWC'),
    )
    return (y,)

  return convolve


def _down(x: Array, kernel: Array) -> tuple[Array]:
  b, _, _, c = x.shape
  stride = len(kernel) // 2
  x = jnp.pad(x, ((0, 0), (stride // 2, stride // 2), (0, 0), (0, 0)))
  x = x.reshape(b, -1, 1, stride * c)
  first, second = kernel.reshape(2, stride * c, -1)
  return (x[:, :-1] @ first + x[:, 1:] @ second,)


def _up(x: Array, kernel: Array) -> tuple[Array]:
  b, _, _, c = x.shape
  stride = len(kernel) // 2
  features = kernel.shape[-1]
  x = jnp.pad(x, ((0, 0), (1, 1), (0, 0), (0, 0)))
  kernel = kernel.reshape(2, stride, c, features).transpose(0, 2, 1, 3)
  first, second = kernel.reshape(2, c, stride * features)
  y = (x[:, 1:] @ first + x[:, :-1] @ second).reshape(b, -1, 1, features)
  return (y[:, stride // 2 : -(stride // 2)],)
