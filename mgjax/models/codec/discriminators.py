"""Multi-period and multi-band spectrogram discriminators of the audio codec (Movie Gen §6).

They are those of DAC (Kumar et al. 2023), from which the codec of the paper derives.
"""

import functools
from collections.abc import Sequence
from typing import Annotated

import flax.linen as nn
import jax
import jax.numpy as jnp

from mgjax.core.settings import Positive, Range
from mgjax.core.typing import Array, Float
from mgjax.models.codec.layers import normalised
from mgjax.models.codec.spectrum import stft
from mgjax.parallel.gather import Local
from mgjax.parallel.shard import over_rows

_SLOPE = 0.1  # of leaky rectifiers below zero
LOUDEST = 0.8  # sample of what is judged
_BANDS = (0.0, 0.1, 0.25, 0.5, 0.75, 1.0)  # edges, parts of half the rate
STRIDE = 3  # along a fold

Opinion = tuple[tuple[Array, ...], Array]  # features of every layer, and logits


class PlaneConv(nn.Module):
  """A 2D convolution of odd windows with weight norm and bias; half a window of zeros at ends."""

  features: int
  window: tuple[int, int]
  stride: tuple[int, int] = (1, 1)
  dtype: jnp.dtype = jnp.float32

  @nn.compact
  def __call__(self, x: Float[Array, 'b h w c']) -> Float[Array, 'b i j o']:
    return normalised(self, _make_convolve(self.stride), x, self.window, self.features)


@functools.cache
def _make_convolve(stride: tuple[int, int]) -> Local:
  def convolve(x: Array, kernel: Array) -> tuple[Array]:
    edges = [(taps // 2, taps // 2) for taps in kernel.shape[:2]]
    y = jax.lax.conv_general_dilated(
      x, kernel, stride, edges, dimension_numbers=('NHWC', 'HWIO', 'NHWC')
    )
    return (y,)

  return convolve


class PeriodDiscriminator(nn.Module):
  """Multi-period discriminator: 2D layers on audio folded at `period` samples (Kong et al. 2020).

  All layers but the last one have stride 3.
  """

  period: int
  widths: tuple[int, ...]
  dtype: jnp.dtype

  @nn.compact
  def __call__(self, sound: Float[Array, 'b s c']) -> Opinion:
    b, s, c = sound.shape
    # A whole row if none is broken, as published.
    x = jnp.pad(sound, ((0, 0), (0, self.period - s % self.period), (0, 0)), mode='reflect')
    x = x.reshape(b, -1, self.period, c)
    features = []
    for level, width in enumerate(self.widths):
      stride = (STRIDE if level < len(self.widths) - 1 else 1, 1)
      x = PlaneConv(width, (5, 1), stride, self.dtype, name=f'conv_{level}')(x)
      x = jax.nn.leaky_relu(x, _SLOPE)
      features.append(x)
    return tuple(features), PlaneConv(1, (3, 1), name='logits')(x.astype(jnp.float32))


class SpectrumDiscriminator(nn.Module):
  """Multi-band discriminator of a complex spectrogram: each band has its own layers.

  Windows of `window` samples are a quarter of that apart.
  """

  window: int
  width: int
  dtype: jnp.dtype

  @nn.compact
  def __call__(self, sound: Float[Array, 'b s c']) -> Opinion:
    def spectrum(sound: Array) -> Array:
      x = jnp.moveaxis(stft(sound, self.window, centred=False), 2, 3)
      return jnp.concatenate((x.real, x.imag), axis=-1)

    x = over_rows(spectrum, sound)
    places = [int(edge * x.shape[2]) for edge in _BANDS]
    features = []
    judged = []
    for band in range(len(_BANDS) - 1):
      y = x[:, :, places[band] : places[band + 1]]
      for level, (window, stride) in enumerate([((3, 9), 1), *[((3, 9), 2)] * 3, ((3, 3), 1)]):
        conv = PlaneConv(
          self.width, window, (1, stride), self.dtype, name=f'band_{band}_conv_{level}'
        )
        y = jax.nn.leaky_relu(conv(y), _SLOPE)
        features.append(y)
      judged.append(y.astype(jnp.float32))
    return tuple(features), PlaneConv(1, (3, 3), name='logits')(jnp.concatenate(judged, axis=2))


class Discriminators(nn.Module):
  """All discriminators, on audio with its mean removed and its peak scaled to 0.8."""

  periods: tuple[Positive, ...] = (2, 3, 5, 7, 11)
  period_widths: tuple[Positive, ...] = (32, 128, 512, 1024, 1024)
  windows: tuple[Annotated[int, Range(least=4)], ...] = (2048, 1024, 512)
  window_width: Positive = 32
  dtype: jnp.dtype = jnp.float32

  @nn.compact
  def __call__(self, sound: Float[Array, 'b s c']) -> Sequence[Opinion]:
    x = levelled(sound)
    folded = [
      PeriodDiscriminator(period, self.period_widths, self.dtype, name=f'period_{period}')(x)
      for period in self.periods
    ]
    seen = [
      SpectrumDiscriminator(window, self.window_width, self.dtype, name=f'window_{window}')(x)
      for window in self.windows
    ]
    return (*folded, *seen)


def levelled(sound: Float[Array, 'b s c']) -> Float[Array, 'b s c']:
  """Removes the mean of every channel and scales the peak of each row to 0.8."""
  sound = sound - jnp.mean(sound, axis=1, keepdims=True)
  peak = jnp.max(jnp.abs(sound), axis=(1, 2), keepdims=True)
  return LOUDEST * sound / (peak + 1e-9)
