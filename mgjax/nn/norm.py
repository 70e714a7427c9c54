"""Normalisations; statistics are always taken in float32."""

import flax.linen as nn
import jax
import jax.numpy as jnp

from mgjax.core.errors import ConfigError
from mgjax.core.typing import Array, Float
from mgjax.nn.linear import ONES, ZEROS, parameter


class RMSNorm(nn.Module):
  """y = w x / sqrt(mean(x^2) + eps) over the last axis (Movie Gen §3.1.3, as Llama 3).

  Without `affine` there is no w.
  """

  epsilon: float = 1e-5  # not in public sources
  dtype: jnp.dtype = jnp.float32
  affine: bool = True

  @nn.compact
  def __call__(self, x: Float[Array, '... d']) -> Float[Array, '... d']:
    width = x.shape[-1]
    scale = parameter(self, 'scale', ONES, ('embed',), (width,)) if self.affine else None
    x = x.astype(jnp.float32)
    x = x * jax.lax.rsqrt(jnp.mean(x * x, axis=-1, keepdims=True) + self.epsilon)
    x = x if scale is None else x * jnp.broadcast_to(scale, x.shape)
    return x.astype(self.dtype)


class LayerNorm(nn.Module):
  """y = w (x - mean(x)) / sqrt(var(x) + eps) + b over the last axis.

  Without `affine` there are no w and b.
  """

  epsilon: float = 1e-5
  dtype: jnp.dtype = jnp.float32
  affine: bool = True

  @nn.compact
  def __call__(self, x: Float[Array, '... d']) -> Float[Array, '... d']:
    axes = ('embed',)
    shape = x.shape[-1:]
    inits = {'scale': ONES, 'bias': ZEROS} if self.affine else {}
    own = [parameter(self, name, init, axes, shape) for name, init in inits.items()]
    x = x.astype(jnp.float32)
    x = x - jnp.mean(x, axis=-1, keepdims=True)
    x = x * jax.lax.rsqrt(jnp.mean(x * x, axis=-1, keepdims=True) + self.epsilon)
    if own:
      scale, bias = (jnp.broadcast_to(vector, x.shape) for vector in own)
      x = x * scale + bias
    return x.astype(self.dtype)


NORMS: dict[str, type[nn.Module]] = {'rms': RMSNorm, 'layer': LayerNorm}


class FrameGroupNorm(nn.Module):
  """Group normalisation of each frame by itself: statistics over h, w and the group's channels.

  Frames do not see each other here, so that an image is exactly a one-frame video.
  Raises ConfigError if the channels do not divide into the groups.
  """

  groups: int = 32
  epsilon: float = 1e-6
  dtype: jnp.dtype = jnp.float32

  @nn.compact
  def __call__(self, x: Float[Array, 'b t h w c']) -> Float[Array, 'b t h w c']:
    channels = x.shape[-1]
    if channels % self.groups:
      raise ConfigError(f'{channels} channels do not divide into {self.groups} groups')
    scale = parameter(self, 'scale', ONES, ('channels',), (channels,))
    bias = parameter(self, 'bias', ZEROS, ('channels',), (channels,))
    x = x.astype(jnp.float32)
    # Per-channel moments first, then averages of channels within a group: the large array is read
    # once and never reshaped, which makes this fast on every backend.
    count = x.shape[2] * x.shape[3] * (channels // self.groups)
    first = self._within_groups(jnp.sum(x, axis=(2, 3))) / count
    centred = x - first[:, :, None, None, :]
    second = self._within_groups(jnp.sum(centred * centred, axis=(2, 3))) / count
    factor = jax.lax.rsqrt(second + self.epsilon) * scale[None, None, :]
    y = centred * factor[:, :, None, None, :] + bias[None, None, None, None, :]
    return y.astype(self.dtype)

  def _within_groups(self, sums: Float[Array, 'b t c']) -> Float[Array, 'b t c']:
    b, t, c = sums.shape
    total = sums.reshape(b, t, self.groups, c // self.groups).sum(axis=-1, keepdims=True)
    return jnp.broadcast_to(total, (b, t, self.groups, c // self.groups)).reshape(b, t, c)
