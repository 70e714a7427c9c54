"""Finds onsets in audio of 48 kHz: where the power of many bands rises at once.

With P_k the power of band k in a window of 5 ms, the rise is
sum_k max(0, dB_k(t) - dB_k(t - 5 ms)), dB_k = 10 log10(P_k + noise_k). The noise is 60 dB below
full scale or, if that is more, four times the median of P_k over the sound: what is softer or
always there is no onset.
"""

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
from scipy import optimize, signal

from mgjax.core.errors import DataError
from mgjax.core.spectrum import magnitudes
from mgjax.core.typing import Float
from mgjax.data.synthetic_datasets import RATE

WITHIN = 0.15  # seconds between an event and an onset that may be its
TOGETHER = 0.03  # seconds; events nearer than this are heard as one
FLOOR = 1e-6  # of full scale's power
_WINDOW, _HOP = 256, 24  # samples: 5.3 ms, every 0.5 ms
_LAG = 10  # hops between the windows that are compared
_EDGES = np.array((100, 400, 900, 1600, 3000, 5000, 7500, 10_500, 14_000, 18_000))  # Hz, of 9 bands
# Above its lower edge and not above its upper one: the frequencies of each band, (n k).
_BANDS = np.float32(np.diff(np.fft.rfftfreq(_WINDOW, 1 / RATE)[:, None] >= _EDGES))
# Scaled so that the power of noise is its mean square; in single precision, twice as fast.
_HANN = np.float32(np.hanning(_WINDOW) / np.sqrt((np.hanning(_WINDOW) ** 2).sum() * _WINDOW / 2))
_NOISE = 4.0  # times the median power of a band, below which it is noise
LEAST = 30.0  # dB that all bands together must rise; noise alone reaches 16


def mono_of(sound: Float[np.ndarray, 's c']) -> Float[np.ndarray, 's']:
  """Averages the channels. Raises DataError unless a sound is finite."""
  if sound.ndim != 2 or not sound.size or not np.isfinite(sound).all():
    raise DataError(
      f'the judge of audio got {sound.dtype} {sound.shape}, expected finite numbers (samples, '
      'channels); a batch has an axis more'
    )
  return sound.astype(np.float32).mean(1)


def onsets_of(
  mono: Float[np.ndarray, 's'], share: float, least: float = LEAST, *, began: bool = False
) -> Float[np.ndarray, '_']:
  """Returns the seconds of onsets that reach a share of the steepest rise of a sound.

  They rise at least so many dB, all bands together. What `began` before is no onset at 0.
  """
  rise = _rise(mono, 'reflect' if began else 'constant')
  height = max(least, share * float(rise.max(initial=0)))
  rise = np.pad(rise, 1)  # the first and the last may be peaks
  places, _ = signal.find_peaks(rise, height=height, distance=round(TOGETHER * RATE / _HOP))
  return (places - 1) * _HOP / RATE


def matched(
  onsets: Float[np.ndarray, '_'], events: Float[np.ndarray, '_']
) -> tuple[np.ndarray, np.ndarray]:
  """Pairs as many onsets as possible with events within 150 ms, with the least sum of errors."""
  distance = np.abs(onsets[:, None] - events)
  far = 1.0 + WITHIN * max(distance.shape)  # more than dropping a match could save
  rows, columns = optimize.linear_sum_assignment(np.where(distance > WITHIN, far, distance))
  matches = distance[rows, columns] <= WITHIN
  return rows[matches], columns[matches]


def apart(events: Float[np.ndarray, '_']) -> np.ndarray:
  """Returns the indices of events that are audible separately: not within 30 ms of the last one."""
  separate: list[int] = []
  for index, event in enumerate(events):
    if not separate or event - events[separate[-1]] >= TOGETHER:
      separate.append(index)
  return np.array(separate, int)


def tally(readings: Sequence[Any]) -> dict[str, float]:
  """Summarises `errors`, `missed` and `extra` of audio. Raises DataError if there are none."""
  if not readings:
    raise DataError('there is no audio to judge')
  errors = np.concatenate([np.abs(reading.errors) for reading in readings])
  missed, extra = (
    sum(getattr(reading, name) for reading in readings) for name in ('missed', 'extra')
  )
  quiet = [not reading.extra for reading in readings if not len(reading.errors) + reading.missed]
  return {
    'onset_error': 1000 * float(np.median(errors)) if errors.size else np.nan,
    'missed': share_of(missed, missed + len(errors)),
    'extra': share_of(extra, extra + len(errors)),
    'silence': share_of(sum(quiet), len(quiet)),
    'clips': len(readings),
  }


def share_of(count: int, total: int) -> float:
  """Returns a share of onsets, events or clips; NaN if there are none."""
  return count / total if total else np.nan


def _rise(mono: np.ndarray, padding: Literal['reflect', 'constant']) -> Float[np.ndarray, '_']:
  """By how many dB, all bands together, each hop is above what was 5 ms earlier."""
  before = _WINDOW // 2 + _LAG * _HOP
  padded = np.pad(mono, (0, max(0, _WINDOW // 2 - len(mono))))
  padded = np.pad(padded, (before, 0), padding)
  starts = np.arange(0, len(padded) - _WINDOW + 1, _HOP)
  power = magnitudes(padded, _HANN, starts) ** 2 @ _BANDS
  noise = _NOISE * np.median(power[2 * _LAG :], axis=0) if len(power) > 2 * _LAG else 0.0
  decibels = 10 * np.log10(power + np.maximum(noise, FLOOR))
  return np.maximum(decibels[_LAG:] - decibels[:-_LAG], 0).sum(1)
