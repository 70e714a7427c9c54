"""Measures whether seams of long audio are audible: spectral flux at seams and elsewhere."""

import dataclasses
from collections.abc import Iterable, Sequence

import numpy as np

from mgjax.core.errors import DataError
from mgjax.core.spectrum import magnitudes
from mgjax.core.typing import Float

HOP = 0.005  # seconds between spectra
WINDOW = 0.02  # seconds of a spectrum
REACH = 0.02  # seconds to either side of a seam that belong to it
_FLOOR = 1e-3  # inaudible magnitude: 60 dB below full scale
_SPREAD = 0.25  # seconds around a seam without reference positions


@dataclasses.dataclass(frozen=True)
class Seams:
  """The change of the spectrum at the seams of a sound.

  `ratio` is the median over seams of the largest flux within 20 ms, divided by the same median at
  reference positions; about 1 if seams are inaudible. `rank` is the mean share of reference
  positions with less change than a seam: 0.5 if seams are inaudible, 1 if each seam changes more
  than anything else. Seams louder than the sound's own events raise both, seams as loud as these
  only the ratio. `places` is the number of reference positions.
  """

  ratio: float
  rank: float
  seams: int
  places: int


def spectral_flux(
  sound: Float[np.ndarray, 's c'], rate: int
) -> tuple[Float[np.ndarray, ' t'], Float[np.ndarray, ' t']]:
  """Returns times in seconds, every 5 ms, and the spectral flux at these times.

  `flux = mean_f |L(t, f) - L(t - 1, f)|` of `L = log10(1 + |S| / 10^-3)`, where S is the spectrum
  of 20 ms under a Hann window, with concatenated channels, 1 for a sine of full scale. Magnitudes
  60 dB below that hardly count. A jump of the waveform appears at most 10 ms from its time.
  """
  hop = round(HOP * rate)
  size = round(WINDOW * rate)
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
  """Compares the flux at the seams of audio with that at reference positions.

  References are every 40 ms, at least 250 ms from any seam. Seams are in seconds, from
  `Cover.starts` or the ends of windows. The ratio of two inaudible medians, as in silence, is 1.
  Raises DataError if a sound is too short or not finite, or there is no seam or no reference.
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
      is_far = np.abs(places[:, None] - seams[None]).min(1) >= _SPREAD
      places = places[is_far]
    at += [_peak(times, flux, seam) for seam in seams]
    elsewhere += [_peak(times, flux, time) for time in places]
  if not at or not elsewhere:
    raise DataError(
      f'{len(at)} seams and {len(elsewhere)} places elsewhere; expected one of each at least: '
      f'seams are seconds within the sound, and places are {_SPREAD} s away from all of them'
    )
  heard = 1e-3  # in powers of ten, the least audible change at all frequencies
  ratio = (np.median(at) + heard) / (np.median(elsewhere) + heard)
  order = np.sort(elsewhere)
  below = np.searchsorted(order, at, side='left') + np.searchsorted(order, at, side='right')
  rank = float(np.mean(below) / (2 * len(order)))
  return Seams(float(ratio), rank, len(at), len(elsewhere))


def _peak(times: np.ndarray, flux: np.ndarray, time: float) -> float:
  first, last = np.searchsorted(times, [time - REACH, time + REACH])
  return float(flux[first : max(last, first + 1)].max())
