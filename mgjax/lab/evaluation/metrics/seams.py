"""Measures whether seams of long audio are audible: spectral flux there and elsewhere."""

import dataclasses
from collections.abc import Iterable, Sequence

import numpy as np

from mgjax.core.errors import DataError
from mgjax.core.spectrum import magnitudes
from mgjax.core.typing import Float

HOP = 0.005  # seconds between looks at the spectrum
WINDOW = 0.02  # seconds that a look takes in
REACH = 0.02  # seconds to either side of a seam that belong to it
_FLOOR = 1e-3  # magnitude below which nothing is heard: 60 dB under full scale
_SPREAD = 0.25  # seconds around a seam from which the places to compare it with keep away


@dataclasses.dataclass(frozen=True)
class Seams:
  """How much the spectrum changes at the seams of a sound.

  `ratio` is the median over the seams of the largest flux within 20 ms of each, over the median of
  the same at places elsewhere, about 1 where seams are not heard. `rank` is the mean share of the
  places elsewhere that change less than a seam does: 0.5 where seams are not heard, 1 where each
  changes more than anything else. A seam that is louder than the sound's own events has both high,
  one that is as loud as they are the ratio alone.
  """

  ratio: float
  rank: float
  seams: int
  places: int


def spectral_flux(
  sound: Float[np.ndarray, 's c'], rate: int
) -> tuple[Float[np.ndarray, ' t'], Float[np.ndarray, ' t']]:
  """Returns the moments, in seconds, and the flux there, every 5 ms.

  `flux = mean_f |L(t, f) - L(t - 1, f)|` of `L = log10(1 + |S| / 10^-3)`, where S is the spectrum
  of 20 ms under a Hann window, all channels side by side, 1 for a sine of full scale. What is more
  than 60 dB below that hardly counts. A jump of the waveform shows at most 10 ms beside its place.
  """
  hop, size = round(HOP * rate), round(WINDOW * rate)
  if len(sound) < size + hop:
    raise DataError(f'a sound of {len(sound) / rate:.3f} s is too short to look for seams in')
  hann = np.hanning(size + 2)[1:-1]
  starts = np.arange(0, len(sound) - size + 1, hop)
  flux = np.empty(len(starts) - 1)
  last = None
  for first in range(0, len(starts), 1000):  # 5 s at a time
    block = magnitudes(sound, hann, starts[first : first + 1000]) * (2 / hann.sum())
    levels = np.log10(1 + block / _FLOOR)
    if last is not None:
      levels = np.concatenate([last, levels])
    begin = first if last is None else first - 1
    flux[begin : begin + len(levels) - 1] = np.abs(np.diff(levels, axis=0)).mean((1, 2))
    last = levels[-1:]
  return (np.arange(len(flux)) + 0.5) * (hop / rate) + size / rate / 2, flux


def gather_seams(
  sounds: Iterable[tuple[Float[np.ndarray, 's c'], Sequence[float] | Float[np.ndarray, ' n']]],
  rate: int,
) -> Seams:
  """Compares the flux at the seams of audio with that at places every 40 ms, 250 ms away from any.

  Seams are in seconds, from `Cover.starts` or where windows end. A ratio of two medians below what
  is heard, as in silence, is 1. Raises DataError if a sound is too short or not finite, there is no
  seam, or nothing elsewhere.
  """
  at = []
  elsewhere = []
  for sound, seams in sounds:
    if not np.isfinite(sound).all():
      raise DataError('a sound that is to be searched for seams is not finite')
    times, flux = spectral_flux(np.asarray(sound), rate)
    seams = np.asarray(seams, np.float64)
    seams = seams[(seams >= times[0]) & (seams <= times[-1])]
    places = np.arange(times[0] + REACH, times[-1] - REACH, 2 * REACH)
    if len(seams):
      away = np.abs(places[:, None] - seams[None]).min(1) >= _SPREAD
      places = places[away]
    at += [_peak(times, flux, seam) for seam in seams]
    elsewhere += [_peak(times, flux, place) for place in places]
  if not at or not elsewhere:
    raise DataError(
      f'{len(at)} seams and {len(elsewhere)} places elsewhere; expected one of each at least: '
      f'seams are seconds within the sound, and places are {_SPREAD} s away from all of them'
    )
  heard = 1e-3  # a thousandth of a factor of ten, in every frequency
  ratio = (np.median(at) + heard) / (np.median(elsewhere) + heard)
  order = np.sort(elsewhere)
  below = np.searchsorted(order, at, side='left') + np.searchsorted(order, at, side='right')
  rank = float(np.mean(below) / (2 * len(order)))
  return Seams(float(ratio), rank, len(at), len(elsewhere))


def _peak(times: np.ndarray, flux: np.ndarray, place: float) -> float:
  first, last = np.searchsorted(times, [place - REACH, place + REACH])
  return float(flux[first : max(last, first + 1)].max())
