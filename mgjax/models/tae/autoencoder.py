"""The temporal autoencoder, TAE (Movie Gen §3.1.1)."""

import math

import einops
import flax.linen as nn
import flax.struct
import jax
import jax.numpy as jnp

from mgjax.core.configuration.keys import Fields
from mgjax.core.errors import ConfigError
from mgjax.core.settings import Count, Positive, check, unpack_kind
from mgjax.core.typing import Array, Float, Key
from mgjax.models.tae.blocks import (
  FULL,
  AttentionBlock,
  Conv,
  Downsample,
  ResidualBlock,
  Strides,
  Temporal,
  Upsample,
)
from mgjax.models.tae.shortcut import blocks, unblock
from mgjax.models.tae.wan import WanAutoencoder
from mgjax.nn.conv import SpatialConv
from mgjax.nn.linear import FAN_IN, Linear
from mgjax.nn.norm import FrameGroupNorm

# Small first reconstructions: the last convolution starts a tenth as large as the others.
QUIET = jax.nn.initializers.variance_scaling(0.01, 'fan_in', 'truncated_normal')
_FIRST = -6.0  # log-variance at the start of a shortcut, whose latents noise would only spoil


@flax.struct.dataclass
class Posterior:
  """q(z | x) = N(mean, exp(log_variance)), a diagonal Gaussian a latent number."""

  mean: Float[Array, 'b t h w c']
  log_variance: Float[Array, 'b t h w c']

  def sample(self, key: Key) -> Float[Array, 'b t h w c']:
    """Draws mean + exp(log_variance / 2) * N(0, 1)."""
    noise = jax.random.normal(key, self.mean.shape, self.mean.dtype)
    return self.mean + jnp.exp(0.5 * self.log_variance) * noise


class Encoder(nn.Module):
  """Pixels in [-1, 1] -> mean and log-variance, 2 C channels."""

  widths: tuple[int, ...]
  strides: tuple[Strides, ...]
  blocks: int
  channels: int
  groups: int
  dtype: jnp.dtype
  temporal: Temporal = True
  initializer: jax.nn.initializers.Initializer = FAN_IN  # of the last convolution

  @nn.compact
  def __call__(self, x: Float[Array, 'b t h w c']) -> Float[Array, 'b u i j o']:
    shared = (self.groups, self.dtype, self.temporal)
    x = Conv(self.widths[0], dtype=self.dtype, temporal=self.temporal, name='conv_in')(x)
    for level, width in enumerate(self.widths):
      for block in range(self.blocks):
        x = ResidualBlock(width, *shared, name=f'level_{level}_block_{block}')(x)
      if level < len(self.strides):
        x = Downsample(self.strides[level], self.dtype, name=f'level_{level}_down')(x)
    x = _middle(x, *shared)
    x = jax.nn.silu(FrameGroupNorm(self.groups, dtype=self.dtype, name='norm_out')(x))
    return Conv(
      2 * self.channels, temporal=self.temporal, initializer=self.initializer, name='conv_out'
    )(x)


class Decoder(nn.Module):
  """Latents of C channels -> pixels in [-1, 1]; one more block a level than the encoder."""

  widths: tuple[int, ...]
  strides: tuple[Strides, ...]
  blocks: int
  channels: int
  groups: int
  dtype: jnp.dtype
  temporal: Temporal = True

  @nn.compact
  def __call__(
    self, x: Float[Array, 'b t h w c'], small: bool = False
  ) -> Float[Array, 'b u i j o']:
    """Returns the pixels, or, `small`, what is there before anything is enlarged."""
    shared = (self.groups, self.dtype, self.temporal)
    x = Conv(self.widths[-1], dtype=self.dtype, temporal=self.temporal, name='conv_in')(x)
    x = _middle(x, *shared)
    if small:
      return x
    for level, width in reversed(list(enumerate(self.widths))):
      if level < len(self.strides):
        x = Upsample(self.strides[level], self.dtype, self.temporal, name=f'level_{level}_up')(x)
      for block in range(self.blocks + 1):
        x = ResidualBlock(width, *shared, name=f'level_{level}_block_{block}')(x)
    x = jax.nn.silu(FrameGroupNorm(self.groups, dtype=self.dtype, name='norm_out')(x))
    return SpatialConv(self.channels, initializer=QUIET, name='conv_out')(x)


def _middle(x: Array, groups: int, dtype, temporal: Temporal) -> Array:
  width = x.shape[-1]
  x = ResidualBlock(width, groups, dtype, temporal, name='middle_block_0')(x)
  x = AttentionBlock(groups, dtype, temporal, name='middle_attention')(x)
  return ResidualBlock(width, groups, dtype, temporal, name='middle_block_1')(x)


class Autoencoder(nn.Module):
  """A variational autoencoder of video that compresses time, height and width.

  The image encoder and decoder of Rombach et al. (2022) with a temporal layer after each spatial
  one, but for the exceptions that `mgjax.models.tae.blocks` names. Images are one-frame videos. T
  frames give ceil(T / c_t) latent frames; decoding gives c_t ceil(T / c_t) frames, of which the
  first T are kept. Not causal.

  Attributes:
    latent_channels: C; 16 in the paper.
    widths: channels of each level, finest first.
    strides: (t, h, w) between levels, each 1 or 2; three times (2, 2, 2) is 8 x 8 x 8.
    patch: (t, h, w) pixels folded into channels before the first convolution. (1, 1, 1) is the
      paper's; a larger one makes small models on CPUs several times faster. Time must be 1.
    temporal: whether there are temporal layers. Without them, and with strides that leave time
      alone, it is an image autoencoder, which encodes each frame by itself (Movie Gen §3.1.5). With
      'full' its layers are 3D in place of 2.5D (Table 12).
    quant_convolutions: 1 x 1 convolutions on the moments and on what is decoded, as the image
      autoencoders of Stable Diffusion 1, 2 and XL have them. Where the decoder pads with zeros, the
      bias of the second one does not reach, so it cannot be folded into its neighbour.
    shortcut: a linear way around both networks, see `mgjax.models.tae.shortcut`; small models on
      CPUs need a tenth of the steps with it.
  """

  latent_channels: Positive = 16
  widths: tuple[Positive, ...] = (128, 256, 512, 512)
  strides: tuple[Strides, ...] = ((2, 2, 2),) * 3
  blocks: Count = 2
  groups: Positive = 32
  patch: Strides = (1, 1, 1)
  temporal: Temporal = True
  quant_convolutions: bool = False
  shortcut: bool = False
  dtype: jnp.dtype = jnp.float32

  def setup(self):
    self._check()
    pixels = 3 * math.prod(self.patch)
    shared = (self.groups, self.dtype, self.temporal)
    first = QUIET if self.shortcut else FAN_IN
    self.encoder = Encoder(
      self.widths, self.strides, self.blocks, self.latent_channels, *shared, initializer=first
    )
    self.decoder = Decoder(self.widths, self.strides, self.blocks, pixels, *shared)
    if self.quant_convolutions:
      self.quant_conv = SpatialConv(2 * self.latent_channels, window=1)
      self.post_quant_conv = SpatialConv(self.latent_channels, window=1)
    if self.shortcut:
      channels = self.latent_channels
      size = 3 * math.prod(self.compression)
      axes = ('channels_in', 'channels')
      self.shortcut_in = Linear(channels, axes, True)
      self.shortcut_out = Linear(size, axes, True)

  @property
  def compression(self) -> Strides:
    """Pixels to latent places along t, h, w."""
    return tuple(math.prod(steps) for steps in zip(self.patch, *self.strides, strict=True))

  def latent_shape(self, shape: tuple[int, int, int]) -> tuple[int, int, int, int]:
    """Returns (t, h, w, c) of the latents of a video of `shape` (t, h, w)."""
    sizes = tuple(-(-s // c) for s, c in zip(shape, self.compression, strict=True))
    return (*sizes, self.latent_channels)

  def encode(self, video: Float[Array, 'b t h w 3']) -> Posterior:
    """Encodes pixels in [-1, 1]; ConfigError if a side does not divide by the compression."""
    _, height, width = self.compression
    if video.shape[2] % height or video.shape[3] % width:
      raise ConfigError(
        f'{video.shape[2]} x {video.shape[3]} pixels do not divide by the compression '
        f'{height} x {width}; resize or crop the video'
      )
    _, dh, dw = self.patch
    x = einops.rearrange(video, 'b t (h dh) (w dw) c -> b t h w (dh dw c)', dh=dh, dw=dw)
    moments = self.encoder(x)
    if self.quant_convolutions:
      moments = self.quant_conv(moments)
    mean, log_variance = jnp.split(moments, 2, axis=-1)
    if self.shortcut:
      mean += self.shortcut_in(blocks(video, self.compression))
      log_variance += _FIRST
    return Posterior(mean, jnp.clip(log_variance, -30.0, 20.0))

  def decode(
    self, latents: Float[Array, 'b t h w c'], frames: int | None = None
  ) -> Float[Array, 'b u i j 3']:
    """Decodes latents into the first `frames` frames, by default all that they stand for."""
    _, dh, dw = self.patch
    if self.quant_convolutions:
      latents = self.post_quant_conv(latents)
    x = self.decoder(latents)
    x = einops.rearrange(x, 'b t h w (dh dw c) -> b t (h dh) (w dw) c', dh=dh, dw=dw, c=3)
    if self.shortcut:
      x += unblock(self.shortcut_out(latents), self.compression)
    return x[:, :frames]

  def features(self, latents: Float[Array, 'b t h w c']) -> Float[Array, 'b t h w f']:
    """Returns what the decoder knows of each latent and its neighbours before it enlarges them."""
    if self.quant_convolutions:
      latents = self.post_quant_conv(latents)
    return self.decoder(latents, small=True)

  def __call__(
    self, video: Float[Array, 'b t h w 3'], key: Key
  ) -> tuple[Float[Array, 'b t h w 3'], Posterior]:
    """Returns the reconstruction from one posterior sample, and the posterior."""
    posterior = self.encode(video)
    return self.decode(posterior.sample(key), video.shape[1]), posterior

  def _check(self) -> None:
    check(self)
    if len(self.strides) > len(self.widths):
      raise ConfigError(f'{len(self.strides)} strides need as many widths; got {self.widths}')
    for time, height, width in self.strides:
      if time not in (1, 2) or height not in (1, 2) or height != width:
        raise ConfigError(f'strides are 1 or 2 and equal in height and width; got {self.strides}')
    if self.temporal not in (True, False, FULL):
      raise ConfigError(f'temporal = {self.temporal!r}; expected true, false or {FULL!r}')
    if not self.temporal and any(stride[0] != 1 for stride in self.strides):
      raise ConfigError(
        f'temporal = False, and strides {self.strides} compress time; give strides of (1, 2, 2)'
      )
    if self.patch[0] != 1:
      raise ConfigError(f'patches do not fold time; got patch {self.patch}')


def make_autoencoder(fields: Fields) -> Autoencoder | WanAutoencoder:
  """Makes the module that a configuration's `model` describes; `dtype` by its name.

  `kind` is a name in `AUTOENCODERS`; by default it is that of the paper.
  """
  return unpack_kind(AUTOENCODERS, fields, 'model', 'movie_gen')


AUTOENCODERS: dict[str, type[nn.Module]] = {'movie_gen': Autoencoder, 'wan': WanAutoencoder}
