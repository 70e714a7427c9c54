"""The audio codec, a DAC-VAE: 48 kHz to 25 latents a second and back (Movie Gen §6)."""

import math

import flax.linen as nn
import flax.struct
import jax
import jax.numpy as jnp
import numpy as np

from mgjax.core.configuration.keys import Fields
from mgjax.core.errors import ConfigError, DataError
from mgjax.core.settings import Positive, check, unpack
from mgjax.core.typing import Array, Float, Key, Num
from mgjax.models.codec.layers import DILATIONS, AudioConv, DownConv, ResidualUnit, Snake, UpConv

CODEC_RATE = 48_000  # samples a second that the published dimensions are for
_SMALLEST = 1e-4  # standard deviation


@flax.struct.dataclass
class Posterior:
  """q(z | x) = N(mean, std^2) of each number of a latent, std = softplus(scale) + 1e-4."""

  mean: Float[Array, 'b t c']
  scale: Float[Array, 'b t c']

  @property
  def std(self) -> Float[Array, 'b t c']:
    """The standard deviation."""
    return jax.nn.softplus(self.scale) + _SMALLEST

  def sample(self, key: Key) -> Float[Array, 'b t c']:
    """Draws mean + std * N(0, 1)."""
    return self.mean + self.std * jax.random.normal(key, self.mean.shape, self.mean.dtype)


def kl(posterior: Posterior) -> Float[Array, '']:
  """Returns sum_c (mean^2 + std^2 - log std^2 - 1), averaged over latents: twice the KL to N(0, 1).

  Without the factor of 1/2, as the published codec has it.
  """
  mean, std = posterior.mean, posterior.std
  return jnp.sum(mean**2 + std**2 - 2 * jnp.log(std) - 1, axis=-1).mean()


def _reflected(sound: Array, multiple: int) -> Array:
  """Pads time to a multiple by reflection at the end, back and forth if the audio is short."""
  count = sound.shape[1]
  last = sound.shape[1] - 1
  places = np.arange(count, count + -count % multiple) % max(2 * last, 1)
  return jnp.concatenate((sound, sound[:, np.minimum(places, 2 * last - places)]), axis=1)


class Encoder(nn.Module):
  """Sound -> features of width 2^levels `width`, one for each product of strides."""

  width: int
  strides: tuple[int, ...]
  dtype: jnp.dtype

  @nn.compact
  def __call__(self, x: Float[Array, 'b s c']) -> Float[Array, 'b t d']:
    x = AudioConv(self.width, dtype=self.dtype, name='conv_in')(x)
    for level, stride in enumerate(self.strides):
      x = _units(x, level, self.dtype)
      x = Snake(name=f'level_{level}_snake')(x)
      x = DownConv(2 * x.shape[-1], stride, self.dtype, name=f'level_{level}_down')(x)
    x = Snake(name='snake_out')(x)
    return AudioConv(x.shape[-1], 3, dtype=self.dtype, name='conv_out')(x)


class Decoder(nn.Module):
  """Features -> sound; `width`, that of the coarsest level, halves from level to level."""

  width: int
  strides: tuple[int, ...]
  channels: int
  dtype: jnp.dtype

  @nn.compact
  def __call__(self, x: Float[Array, 'b t d']) -> Float[Array, 'b s c']:
    x = AudioConv(self.width, dtype=self.dtype, name='conv_in')(x)
    for level, stride in reversed(list(enumerate(self.strides))):
      x = Snake(name=f'level_{level}_snake')(x)
      x = UpConv(x.shape[-1] // 2, stride, self.dtype, name=f'level_{level}_up')(x)
      x = _units(x, level, self.dtype)
    x = Snake(name='snake_out')(x)
    return jnp.tanh(AudioConv(self.channels, name='conv_out')(x))


def _units(x: Array, level: int, dtype) -> Array:
  for unit, dilation in enumerate(DILATIONS):
    x = ResidualUnit(dilation, dtype, name=f'level_{level}_unit_{unit}')(x)
  return x


class Codec(nn.Module):
  """A variational autoencoder of audio: DAC (Kumar et al. 2023) without its quantisation.

  S samples give ceil(S / r) latents, r the product of strides and patch; what is missing to a
  multiple of r is padded by reflection at the end. Decoding gives r samples a latent, of which the
  first S are kept. Neither side is causal. The published decoder mixes a watermark into what it
  makes; this one does not.
  """

  channels: Positive = 1
  width: Positive = 64  # channels of the encoder's finest level; each stride doubles them
  # Of the levels, finest first, all even; 2 * 8 * 10 * 12 = 1920 samples a latent.
  strides: tuple[Positive, ...] = (2, 8, 10, 12)
  latent_channels: Positive = 128
  # Channels of the decoder's coarsest level; each stride halves them.
  decoder_width: Positive = 1536
  # Samples folded into channels before the first convolution. 1 is the published; more make small
  # models on CPUs several times faster.
  patch: Positive = 1
  dtype: jnp.dtype = jnp.float32

  def setup(self):
    self._check()
    self.encoder = Encoder(self.width, self.strides, self.dtype)
    self.moments = AudioConv(2 * self.latent_channels, 1)
    self.latents_in = AudioConv(self.width * 2 ** len(self.strides), 1, dtype=self.dtype)
    folded = self.patch * self.channels
    self.decoder = Decoder(self.decoder_width, self.strides, folded, self.dtype)

  @property
  def compression(self) -> int:
    """Samples a latent."""
    return self.patch * math.prod(self.strides)

  def encode(self, sound: Num[Array, 'b s c']) -> Posterior:
    """Encodes samples in [-1, 1]; at inference the latents are the mean.

    Raises DataError if there are no samples, they are not floats or their channels are others.
    """
    if not jnp.issubdtype(sound.dtype, jnp.floating):
      raise DataError(
        f'the sound is of {sound.dtype}; expected floats in [-1, 1]: divide 16-bit samples by 32768'
      )
    if sound.ndim != 3 or sound.shape[2] != self.channels:
      raise DataError(
        f'the sound is of shape {sound.shape}; expected 3 axes, (b s c), with {self.channels} '
        'channels: mix it down, or make the codec with as many channels'
      )
    if not sound.shape[1]:
      raise DataError('the sound has no samples; expected one at least')
    filled = _reflected(sound, self.compression)
    filled = filled.reshape(len(sound), -1, self.patch * self.channels)
    mean, scale = jnp.split(self.moments(self.encoder(filled)), 2, axis=-1)
    return Posterior(mean, scale)

  def decode(
    self, latents: Float[Array, 'b t c'], samples: int | None = None
  ) -> Float[Array, 'b s o']:
    """Decodes latents into the first `samples` samples, by default all that they stand for.

    Raises DataError if there are no latents, their channels are others, or they are too few.
    """
    if latents.ndim != 3 or not latents.shape[1] or latents.shape[2] != self.latent_channels:
      raise DataError(
        f'latents of shape {latents.shape}; expected 3 axes, (b t c), with one latent at least and '
        f'{self.latent_channels} channels'
      )
    most = latents.shape[1] * self.compression
    if samples is not None and not 0 < samples <= most:
      raise DataError(f'{samples} samples are asked of latents that stand for {most}')
    sound = self.decoder(self.latents_in(latents))
    return sound.reshape(len(latents), -1, self.channels)[:, :samples]

  def __call__(
    self, sound: Num[Array, 'b s c'], key: Key
  ) -> tuple[Float[Array, 'b s c'], Posterior]:
    """Returns the reconstruction from one posterior sample, and the posterior."""
    posterior = self.encode(sound)
    return self.decode(posterior.sample(key), sound.shape[1]), posterior

  def _check(self) -> None:
    check(self)
    if not self.strides or any(stride < 2 or stride % 2 for stride in self.strides):
      raise ConfigError(f'strides are even, as 2 or 12; got {self.strides}')
    if self.decoder_width % 2 ** len(self.strides):
      raise ConfigError(
        f'decoder_width {self.decoder_width} is halved {len(self.strides)} times; expected a '
        f'multiple of {2 ** len(self.strides)}'
      )


def make_codec(fields: Fields) -> Codec:
  """Makes the module that a configuration's `model` describes; `dtype` by its name."""
  return unpack(Codec, fields, 'model')
