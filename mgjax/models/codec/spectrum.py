"""Short-time Fourier transform and mel filters in JAX (Movie Gen §6)."""

import functools

import jax.numpy as jnp
import numpy as np

from mgjax.core.errors import DataError
from mgjax.core.spectrum import triangles
from mgjax.core.typing import Array, Float, Num

OVERLAP = 4  # windows that see a sample
# Slaney's pitch: linear up to 1 kHz, 15 units of 200/3 Hz, then 27 units for a factor of 6.4.
_KNEE = 1000.0
_UNIT = 200 / 3
_GROWTH = np.log(6.4) / 27


def stft(
  sound: Float[Array, 'b s c'], window: int, *, centred: bool = True
) -> Num[Array, 'b t c f']:
  """Returns the spectrum of windows of w samples, a quarter of that apart, reflected at the ends.

    X_ij = sum_n h_n x_(i w / 4 + n - e) exp(-2 pi i j n / w),   h_n = (1 - cos(2 pi n / w)) / 2

  Args:
    sound: x; as many samples at least as are reflected.
    window: w, a multiple of four.
    centred: whether window i is centred on sample i w / 4 (e = w / 2), which gives 1 + s // (w / 4)
      windows. If not, it is centred on the middle of the i-th w / 4 samples (e = 3 w / 8), with
      ceil(s / (w / 4)) windows.

  Raises:
    DataError: there is less sound than is reflected.
  """
  hop = window // OVERLAP
  count = sound.shape[1]
  first = window // 2 if centred else (window - hop) // 2
  frames = 1 + count // hop if centred else -(-count // hop)
  last = max((frames - 1) * hop + window - first - count, 0)
  if max(first, last) >= count:
    raise DataError(
      f'{count} samples are too few for windows of {window}; expected {max(first, last) + 1} at '
      'least: give longer audio'
    )
  x = jnp.pad(sound, ((0, 0), (first, last), (0, 0)), mode='reflect')
  x = x[:, : (frames + OVERLAP - 1) * hop].reshape(len(x), -1, hop, x.shape[-1])
  x = jnp.swapaxes(x, 2, 3)
  x = jnp.concatenate([x[:, start : start + frames] for start in range(OVERLAP)], axis=-1)
  return jnp.fft.rfft(x * hann(window)[None, None, None])


@functools.cache
def hann(window: int) -> Float[np.ndarray, 'n']:
  """Returns (1 - cos(2 pi n / w)) / 2, n = 0 ... w - 1."""
  return ((1 - np.cos(2 * np.pi * np.arange(window) / window)) / 2).astype(np.float32)


@functools.cache
def mel_filters(rate: int, window: int, bands: int) -> Float[np.ndarray, 'f n']:
  """Returns the mel filter bank (Slaney): the weight of each frequency in each band.

  Triangles between the edges e_0 < ... < e_(n+1), equally spaced in pitch from 0 to rate / 2; band
  j rises from e_j to e_(j+1), falls to e_(j+2), and has the area 1 over frequency in Hz. The f =
  window // 2 + 1 frequencies are those of windows of so many samples.
  """
  edges = _to_hertz(np.linspace(0, _to_pitch(rate / 2), bands + 2))
  places = np.arange(window // 2 + 1) * rate / window
  return (triangles(places, edges) * 2 / (edges[2:] - edges[:-2])).astype(np.float32)


def _to_pitch(hertz: float) -> float:
  if hertz < _KNEE:
    return hertz / _UNIT
  return _KNEE / _UNIT + np.log(hertz / _KNEE) / _GROWTH


def _to_hertz(pitch: np.ndarray) -> np.ndarray:
  above = pitch - _KNEE / _UNIT
  return np.where(above < 0, pitch * _UNIT, _KNEE * np.exp(np.maximum(above, 0) * _GROWTH))
