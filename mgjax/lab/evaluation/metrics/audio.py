"""Audio metrics from waveforms alone: SI-SDR, onsets, and how two tracks go together in time."""

from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
import scipy.signal
import scipy.special

from mgjax.core.errors import DataError
from mgjax.core.typing import Float
from mgjax.models.codec.spectrum import OVERLAP, mel_filters, stft

STEPS = 200  # values of `onset_envelope` a second
FURTHEST = 0.5  # seconds, maximum lag of two sounds
LOUDEST = 100.0  # dB; the limit of SI-SDR, that of equal sounds

_ROUNDING = 1e-20  # of the power
_BANDS = 40
_EDGE = OVERLAP // 2  # steps
_RANGE = 100.0  # a band 40 dB below the loudest counts log10(2)
_RISE = 0.02  # minimum flux of an onset
_SHARE = 0.1  # of the highest peak, minimum of an onset; decays fluctuate by less
_DEVIATIONS = 6.0  # above the median; Gaussian noise exceeds this once in 1e9 values
_APART = 0.05  # seconds between onsets


def signal_to_distortion(
  reference: Float[np.ndarray, 's c'], estimate: Float[np.ndarray, 's c']
) -> float:
  """Returns SI-SDR = 10 log10(|a x|^2 / |a x - y|^2) in dB, a = <x, y> / |x|^2, within +-100 dB.

  x is the reference, y the estimate; silence has -100 dB. Each channel's mean is subtracted first.
  The metric is invariant to loudness, sign and a constant offset, but not to a shift by one sample
  (Le Roux et al., 2019). Raises DataError if the reference is constant, where it is undefined.
  """
  x, y = _centred(reference), _centred(estimate)
  if not x.any():
    raise DataError('SI-SDR has no meaning beside silence; leave silent references out')
  if not y.any():
    return -LOUDEST
  target = x * (np.sum(x * y) / np.sum(x**2))
  shares = np.array([np.sum(target**2), np.sum((target - y) ** 2)]) / np.sum(y**2)
  signal, distortion = 10 * np.log10(np.maximum(shares, 10 ** (-LOUDEST / 10)))
  return float(signal - distortion)


def onset_envelope(sound: Float[np.ndarray, 's c'], rate: int) -> Float[np.ndarray, 't']:
  """Returns the rising spectral flux of a sound, 200 times a second.

    F_i = mean_j max(0, L_ij - L_(i-1)j),   L = log10(1 + 100 M / max M)

  M is the magnitude in 40 mel bands under windows of 20 ms, summed over channels. The flux is
  invariant to loudness. It is 0 for silence and for the 10 ms at both ends, where windows would
  reach beyond the sound. The mean over time separates busy audio from even audio. Raises DataError
  if the sound is shorter than a window, or not finite.
  """
  if not np.isfinite(sound).all():
    raise DataError('the sound is not finite; look at what made it')
  window = OVERLAP * (rate // STEPS)
  spectra = stft(jnp.asarray(sound[None]), window)[0]
  power = np.sum(np.abs(np.asarray(spectra)) ** 2, axis=1)  # t f
  magnitudes = np.sqrt(power) @ mel_filters(rate, window, _BANDS)
  levels = np.log10(1 + _RANGE * magnitudes / max(magnitudes.max(), np.finfo(np.float32).tiny))
  flux = np.maximum(np.diff(levels, axis=0, prepend=levels[:1]), 0).mean(1)
  flux[:_EDGE] = flux[-_EDGE:] = 0
  return flux.astype(np.float32)


def onset_times(sound: Float[np.ndarray, 's c'], rate: int) -> Float[np.ndarray, 'n']:
  """Returns the times of onsets in seconds, the peaks of `onset_envelope`.

  A peak must exceed 0.02, a tenth of the highest peak, and the median + 6 deviations (estimated
  from the median absolute deviation), and be at least 50 ms from a higher one. Onsets after silence
  are detected 5 ms early, when the window first reaches them. Raises as `onset_envelope`.
  """
  flux = onset_envelope(sound, rate)
  middle = np.median(flux)
  spread = np.median(np.abs(flux - middle)) / scipy.special.ndtri(0.75)
  lowest = max(_RISE, _SHARE * flux.max(), middle + _DEVIATIONS * spread)
  peaks, _ = scipy.signal.find_peaks(flux, height=lowest, distance=round(_APART * STEPS))
  return peaks * (rate // STEPS) / rate


class Synchrony(NamedTuple):
  """How two tracks go together in time; None where there is nothing to compare.

  The second is later by `lag` seconds, where they agree most. `correlation` is that of the fluxes
  there, 1 for equal ones. `onset_error` is the median over the onsets of both of the seconds to the
  other's nearest.
  """

  lag: float | None
  correlation: float | None
  onset_error: float | None


def synchrony(x: Float[np.ndarray, 's c'], y: Float[np.ndarray, 's d'], rate: int) -> Synchrony:
  """Compares when two tracks become louder, whatever they are.

    r_k = sum_i (F_i - mean F) (G_(i+k) - mean G) / (|F - mean F| |G - mean G|)

  F and G are their `onset_envelope`. The lag is the k with the highest r (the shortest if several
  are equal), at most half a second. Raises as `onset_envelope`.
  """
  lag = correlation = error = None
  first, second = (flux - flux.mean() for flux in (onset_envelope(z, rate) for z in (x, y)))
  size = np.linalg.norm(first) * np.linalg.norm(second)
  if size > 0:
    products = np.correlate(second, first, 'full') / size
    lags = np.arange(1 - len(first), len(first))
    candidates = np.flatnonzero(np.abs(lags) <= FURTHEST * STEPS)
    best = max(candidates, key=lambda index: (products[index], -abs(lags[index])))
    lag = float(lags[best] * (rate // STEPS) / rate)
    correlation = float(products[best])
  heard, other = onset_times(x, rate), onset_times(y, rate)
  if len(heard) and len(other):
    distances = np.abs(heard[:, None] - other[None])
    error = float(np.median(np.concatenate([distances.min(0), distances.min(1)])))
  return Synchrony(lag, correlation, error)


def _centred(sound: Float[np.ndarray, 's c']) -> Float[np.ndarray, 's c']:
  """Returns the sound in float64 minus each channel's mean; zeros for a constant sound."""
  sound = np.asarray(sound, np.float64)
  centred = sound - sound.mean(0, keepdims=True)
  return centred * (np.sum(centred**2) > _ROUNDING * np.sum(sound**2))
