"""Baseline for the audio codec: a truncated MDCT of as many numbers a second (Movie Gen §6).

The modified discrete cosine transform is what classical audio coding uses. With a hop of one latent
and C coefficients kept of each, it has the codec's numbers a second (and one hop more in all).
"""

import functools

import numpy as np

from mgjax.audio.codec.latents import AudioCodec
from mgjax.core.errors import ConfigError
from mgjax.core.typing import Float


def mdct(sound: Float[np.ndarray, 's c'], hop: int, kept: int) -> Float[np.ndarray, 't k c']:
  """Returns the first `kept` coefficients of windows of 2 N samples, N = `hop` apart.

    X_k = sum_n h_n x_n cos(pi / N (n + 1/2 + N/2) (k + 1/2)),   h_n = sin(pi (n + 1/2) / (2 N))

  Sound is silent beyond its ends; S samples make ceil(S / N) + 1 windows.
  """
  samples, channels = sound.shape
  padded = np.pad(sound, ((hop, hop + -samples % hop), (0, 0))).reshape(-1, hop, channels)
  windows = np.concatenate((padded[:-1], padded[1:]), axis=1)
  return np.einsum('tnc,nk->tkc', windows, _waves(hop, kept), optimize=True)


def inverse_mdct(
  coefficients: Float[np.ndarray, 't k c'], hop: int, samples: int
) -> Float[np.ndarray, 's c']:
  """Returns sound again: that of `mdct` if all N coefficients are kept.

  What neighbouring windows fold over each other cancels where they are added up (Princen and
  Bradley 1986).
  """
  waves = _waves(hop, coefficients.shape[1])
  windows = np.einsum('tkc,nk->tnc', coefficients, waves, optimize=True) * (2 / hop)
  sound = windows[:-1, hop:] + windows[1:, :hop]
  return sound.reshape(-1, sound.shape[-1])[:samples]


@functools.lru_cache(maxsize=4)
def _waves(hop: int, kept: int) -> Float[np.ndarray, 'n k']:
  if not 0 < kept <= hop:
    raise ConfigError(f'{kept} coefficients of windows {hop} apart; expected 1 to {hop}')
  n, k = np.arange(2 * hop) + 0.5, np.arange(kept) + 0.5
  waves = np.cos(np.pi / hop * np.outer(n + hop / 2, k))
  return waves * np.sin(np.pi * n / (2 * hop))[:, None]


def make_truncated_mdct(codec: AudioCodec):
  """Makes `again(sound (s c)) -> (s c)`: the lowest frequencies, as many numbers."""
  channels = codec.model.channels
  hop, kept = codec.compression, max(codec.model.latent_channels // channels, 1)

  def again(sound: Float[np.ndarray, 's c']) -> Float[np.ndarray, 's c']:
    made = inverse_mdct(mdct(sound, hop, kept), hop, len(sound))
    return made.astype(np.float32)

  return again
