"""Linear maps whose parameters carry logical axes."""

import flax.linen as nn
import jax
import jax.numpy as jnp

from mgjax.core.precision import PARAMETER
from mgjax.core.typing import Array, Float

# Fan-in scaling lets one setting train every width; at d = 6144 it is a standard deviation of
# 0.0128, beside the 0.01 that one public recipe of the 30B model uses (not in public sources).
FAN_IN = jax.nn.initializers.variance_scaling(1.0, 'fan_in', 'truncated_normal')
ZEROS = jax.nn.initializers.zeros
ONES = jax.nn.initializers.ones


def parameter(module: nn.Module, name: str, init, axes: tuple[str, ...], shape: tuple[int, ...]):
  """Declares a float32 parameter with one logical name (`core/axes.py`) an axis."""
  return module.param(name, nn.with_logical_partitioning(init, axes), shape, PARAMETER)


class Linear(nn.Module):
  """y = x W (+ b) over the last axis; W is stored (in, out) in float32.

  Attributes:
    features: size of the last axis of the result.
    axes: logical names of W's two axes.
    use_bias: adds b; the backbone has none (Movie Gen Table 9), the image autoencoder has.
    initializer: of W.
    dtype: type of the product.
  """

  features: int
  axes: tuple[str, str]
  use_bias: bool = False
  initializer: jax.nn.initializers.Initializer = FAN_IN
  dtype: jnp.dtype = jnp.float32

  @nn.compact
  def __call__(self, x: Float[Array, '... i']) -> Float[Array, '... o']:
    kernel = parameter(self, 'kernel', self.initializer, self.axes, (x.shape[-1], self.features))
    y = product(x.astype(self.dtype), kernel.astype(self.dtype))
    if self.use_bias:
      bias = parameter(self, 'bias', ZEROS, self.axes[1:], (self.features,))
      y = y + jnp.broadcast_to(bias.astype(self.dtype), y.shape)
    return y


@jax.custom_vjp
def product(x: Float[Array, '... i'], kernel: Float[Array, 'i o']) -> Float[Array, '... o']:
  """Returns x W; its gradient dW = x^T dy is a plain matrix product where that is much faster."""
  return jnp.dot(x, kernel)


def _forward(x: Array, kernel: Array):
  return jnp.dot(x, kernel), (x, kernel)


def _backward(saved, dy: Array):
  x, kernel = saved
  leading = tuple(range(x.ndim - 1))

  def flattened(x: Array, dy: Array) -> Array:
    return jnp.dot(x.reshape(-1, x.shape[-1]).T, dy.reshape(-1, dy.shape[-1]))

  def contracted(x: Array, dy: Array) -> Array:
    return jnp.tensordot(x, dy, (leading, leading))

  # On a CPU, XLA copies both sides of a contraction over (b, n) into transposed layouts first: the
  # backward pass of d = 512, f = 2048 takes 2.5 times as long. On a mesh, though, flattening (b, n)
  # would gather what is sharded along n. So it is decided where the program is lowered.
  dkernel = jax.lax.platform_dependent(x, dy, cpu=flattened, default=contracted)
  return jnp.dot(dy, kernel.T), dkernel


product.defvjp(_forward, _backward)
