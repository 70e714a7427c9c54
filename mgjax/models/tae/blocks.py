"""The 2.5D blocks of the autoencoder: each spatial layer is followed by its temporal one.

The paper's other arm is 3D (Table 12): 3 x 3 x 3 convolutions, and attention among all places of
all frames. What it does where sizes are halved is not in public sources; here that stays 2.5D.

Spatial parts are those of the image autoencoder of Rombach et al. (2022). Temporal convolutions
start as the identity and temporal attention starts at zero, so at initialisation every block acts
on each frame as the image model does (Movie Gen §3.1.1). Kernel sizes, widths, blocks a level,
groups and where attention sits are not in public sources; the defaults are Rombach et al.'s. Read
to the letter, "after each" would also give a temporal layer to the 1 x 1 shortcuts of residual
blocks, to the quant convolutions and to the decoder's last convolution. Ours have none
(docs/decisions/0025-add-no-temporal-layer-after-1x1-convolutions.md).
"""

import flax.linen as nn
import jax
import jax.numpy as jnp

from mgjax.core.settings import Positive
from mgjax.core.typing import Array, Float
from mgjax.nn.attention import attend
from mgjax.nn.conv import SpatialConv, TemporalConv, VolumeConv
from mgjax.nn.linear import FAN_IN, ZEROS, Linear
from mgjax.nn.norm import FrameGroupNorm

Strides = tuple[Positive, Positive, Positive]
FULL = 'full'
Temporal = bool | str  # False of an image model, True of 2.5D, FULL of 3D


class Conv(nn.Module):
  """A spatial convolution, then a temporal one of the same width; or a 3D one, of a 3D model.

  With `upsample` = (t, h, w) frames, rows and columns are first repeated so often, 1 or 2. An image
  model has no temporal ones.
  """

  features: int
  upsample: Strides = (1, 1, 1)
  dtype: jnp.dtype = jnp.float32
  temporal: Temporal = True
  initializer: jax.nn.initializers.Initializer = FAN_IN  # of the spatial one

  @nn.compact
  def __call__(self, x: Float[Array, 'b t h w c']) -> Float[Array, 'b u i j o']:
    frames, rows, _ = (factor == 2 for factor in self.upsample)
    if self.temporal == FULL:
      init = self.initializer
      return VolumeConv(self.features, (frames, rows), init, self.dtype, name='volume')(x)
    x = SpatialConv(
      self.features, upsample=rows, dtype=self.dtype, initializer=self.initializer, name='spatial'
    )(x)
    if not self.temporal:
      return x
    return TemporalConv(self.features, upsample=frames, dtype=self.dtype, name='temporal')(x)


class ResidualBlock(nn.Module):
  """x + conv(silu(norm(conv(silu(norm(x)))))), with a 1 x 1 shortcut where the width changes."""

  features: int
  groups: int
  dtype: jnp.dtype = jnp.float32
  temporal: Temporal = True

  @nn.compact
  def __call__(self, x: Float[Array, 'b t h w c']) -> Float[Array, 'b t h w o']:
    y = jax.nn.silu(FrameGroupNorm(self.groups, dtype=self.dtype, name='norm_1')(x))
    y = Conv(self.features, dtype=self.dtype, temporal=self.temporal, name='conv_1')(y)
    y = jax.nn.silu(FrameGroupNorm(self.groups, dtype=self.dtype, name='norm_2')(y))
    y = Conv(self.features, dtype=self.dtype, temporal=self.temporal, name='conv_2')(y)
    if x.shape[-1] != self.features:
      x = SpatialConv(self.features, window=1, dtype=self.dtype, name='shortcut')(x)
    return x + y


class AttentionBlock(nn.Module):
  """Single-head attention among the places of a frame, then among the frames of a place.

  Of a 3D model once, among all places of all frames.
  """

  groups: int
  dtype: jnp.dtype = jnp.float32
  temporal: Temporal = True

  @nn.compact
  def __call__(self, x: Float[Array, 'b t h w c']) -> Float[Array, 'b t h w c']:
    b, t, h, w, c = x.shape
    y = FrameGroupNorm(self.groups, dtype=self.dtype, name='spatial_norm')(x)
    together = (b, t * h * w, c) if self.temporal == FULL else (b * t, h * w, c)
    y = self._attention('spatial', y.reshape(together), FAN_IN)
    x = x + y.reshape(x.shape)
    if self.temporal is not True:
      return x
    y = FrameGroupNorm(self.groups, dtype=self.dtype, name='temporal_norm')(x)
    y = self._attention('temporal', y.transpose(0, 2, 3, 1, 4).reshape(b * h * w, t, c), ZEROS)
    return x + y.reshape(b, h, w, t, c).transpose(0, 3, 1, 2, 4)

  def _attention(self, name: str, x: Float[Array, 'b n c'], out_init) -> Float[Array, 'b n c']:
    def linear(part: str, init=FAN_IN):
      axes = ('channels_in', 'channels')
      return Linear(x.shape[-1], axes, True, init, self.dtype, name=f'{name}_{part}')

    query, key, value = (linear(part)(x)[:, :, None] for part in ('query', 'key', 'value'))
    return linear('out', out_init)(attend(query, key, value)[:, :, 0])


class Downsample(nn.Module):
  """Strided convolutions: spatial first, then temporal (Movie Gen §3.1.1)."""

  strides: Strides
  dtype: jnp.dtype = jnp.float32

  @nn.compact
  def __call__(self, x: Float[Array, 'b t h w c']) -> Float[Array, 'b u i j c']:
    time, height, _ = self.strides
    if height == 2:
      x = SpatialConv(x.shape[-1], stride=2, dtype=self.dtype, name='spatial')(x)
    if time == 2:
      x = TemporalConv(x.shape[-1], stride=2, dtype=self.dtype, name='temporal')(x)
    return x


class Upsample(nn.Module):
  """Nearest-neighbour repetition, then a convolution (Movie Gen §3.1.1)."""

  strides: Strides
  dtype: jnp.dtype = jnp.float32
  temporal: Temporal = True

  @nn.compact
  def __call__(self, x: Float[Array, 'b t h w c']) -> Float[Array, 'b u i j c']:
    return Conv(x.shape[-1], self.strides, self.dtype, self.temporal, name='conv')(x)
