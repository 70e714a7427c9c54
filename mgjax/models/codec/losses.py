"""Losses of the audio codec: spectral distances, adversarial and feature losses (§6).

That the codec of the paper trains as DAC does, with a prior on its latents in place of the
quantisation, is all that is public; these are DAC's losses (Kumar et al. 2023).
"""

import itertools
from collections.abc import Sequence

import jax
import jax.numpy as jnp
from jax.lax import Precision

from mgjax.core.typing import Array, Float
from mgjax.models.codec.model import CODEC_RATE
from mgjax.models.codec.spectrum import mel_filters, stft
from mgjax.parallel.shard import over_rows

WINDOWS = (32, 64, 128, 256, 512, 1024, 2048)
_BANDS = (5, 10, 20, 40, 80, 160, 320)  # of the windows above
STFT_WINDOWS = (2048, 512)
SPECTRAL_FLOOR = 1e-5  # magnitude that counts

Judged = Sequence[tuple[Sequence[Array], Array]]  # features and logits of every discriminator


def mel_distance(
  sound: Float[Array, 'b s c'],
  other: Float[Array, 'b s c'],
  rate: int = CODEC_RATE,
  spectral_floor: float = SPECTRAL_FLOOR,
) -> Float[Array, '']:
  """Sums mean |log10 max(M x, m) - log10 max(M y, m)| over seven lengths of windows.

  M x is the magnitude of x in mel bands, from 5 (in the shortest window) to 320 (in the longest),
  and m, `spectral_floor`, is the least magnitude that counts.
  """

  def levels(sound: Array) -> tuple[Array, ...]:
    log_bands = []
    for window, count in zip(WINDOWS, _BANDS, strict=True):
      magnitudes = jnp.abs(stft(sound, window))
      filters = jnp.asarray(mel_filters(rate, window, count))
      bands = jnp.matmul(magnitudes, filters, precision=Precision.HIGHEST)
      log_bands.append(_log(bands, spectral_floor))
    return tuple(log_bands)

  return _distance(over_rows(levels, sound), over_rows(levels, other))


def stft_distance(sound: Float[Array, 'b s c'], other: Float[Array, 'b s c']) -> Float[Array, '']:
  """Sums mean |2 log10 |X| - 2 log10 |Y|| + mean ||X| - |Y|| over windows of 2048 and 512."""

  def spectra(sound: Array) -> tuple[Array, ...]:
    magnitudes = [jnp.abs(stft(sound, window)) for window in STFT_WINDOWS]
    return (*(2 * _log(x) for x in magnitudes), *magnitudes)

  return _distance(over_rows(spectra, sound), over_rows(spectra, other))


def waveform_distance(
  sound: Float[Array, 'b s c'], other: Float[Array, 'b s c']
) -> Float[Array, '']:
  """mean |x - y|."""
  return jnp.mean(jnp.abs(sound - other))


def adversarial_loss(fake: Judged) -> Float[Array, '']:
  """sum_k mean (1 - D_k(y))^2 over discriminators, what the codec minimises (Mao et al. 2017)."""
  return sum((jnp.mean((1 - logits) ** 2) for _, logits in fake), start=jnp.zeros(()))


def discriminator_loss(real: Judged, fake: Judged) -> Float[Array, '']:
  """sum_k mean (1 - D_k(x))^2 + mean D_k(y)^2, what the discriminators minimise."""
  return adversarial_loss(real) + sum(jnp.mean(logits**2) for _, logits in fake)


def feature_distance(real: Judged, fake: Judged) -> Float[Array, '']:
  """Sums mean |F_kl(x) - F_kl(y)| over layers l of discriminators k; x gets no gradient."""
  pairs = [zip(x, y, strict=True) for (x, _), (y, _) in zip(real, fake, strict=True)]
  distances = [jnp.mean(jnp.abs(jax.lax.stop_gradient(x) - y)) for x, y in itertools.chain(*pairs)]
  return sum(distances, start=jnp.zeros(()))


def _log(magnitudes: Array, spectral_floor: float = SPECTRAL_FLOOR) -> Array:
  return jnp.log10(jnp.maximum(magnitudes, spectral_floor))


def _distance(levels: Sequence[Array], others: Sequence[Array]) -> Float[Array, '']:
  distances = [jnp.mean(jnp.abs(x - y)) for x, y in zip(levels, others, strict=True)]
  return sum(distances, start=jnp.zeros(()))
