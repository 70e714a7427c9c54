"""How loud a sound is to a listener, and sounds brought to one loudness without ever clipping.

ITU-R BS.1770-4: each channel passes two filters (K: a shelf that lifts what is above 2 kHz by 4 dB,
as a head does, and a high-pass), and with z the mean square of a block of 400 ms, summed over
channels, its loudness is -0.691 + 10 log10(z) LUFS. Blocks overlap by three quarters. The whole has
the loudness of the mean z of the blocks above -70 LUFS that are also above a gate 10 LU below the
loudness of those.
"""

import dataclasses
import math
from collections.abc import Iterable, Iterator

import numpy as np
from scipy import signal

from mgjax.core.errors import DataError
from mgjax.core.typing import Float

_OFFSET = -0.691  # dB, so that a 997 Hz sine of full scale has -3.01 LUFS
_SILENCE = -70.0  # LUFS; what is below is not counted
_GATE = -10.0  # LU
_STEPS = 4  # of 100 ms, in a block
# Of the analogue filters behind the standard's coefficients for 48 kHz.
_SHELF_HZ, _SHELF_DB, _SHELF_Q, _SHELF_SLOPE = (
  1681.974450955533,
  3.999843853973347,
  0.70717524,
  0.49966677,
)
_PASS_HZ, _PASS_Q = 38.13547087602444, 0.50032704


def k_weighting(rate: int) -> Float[np.ndarray, '2 6']:
  """The two filters of the standard as second-order sections, for any number of samples a second.

  At 48 kHz they are the standard's own; at others they have the same response in Hz, by the
  bilinear transform of the same analogue filters.
  """
  shelf, passing = math.tan(math.pi * _SHELF_HZ / rate), math.tan(math.pi * _PASS_HZ / rate)
  high = 10 ** (_SHELF_DB / 20)
  middle = high**_SHELF_SLOPE
  sections = [
    _section(
      shelf,
      _SHELF_Q,
      (
        high + middle * shelf / _SHELF_Q + shelf**2,
        2 * (shelf**2 - high),
        high - middle * shelf / _SHELF_Q + shelf**2,
      ),
    ),
    _section(passing, _PASS_Q, None),
  ]
  return np.array(sections)


def _section(k: float, q: float, above: tuple[float, float, float] | None) -> list[float]:
  below = (1 + k / q + k**2, 2 * (k**2 - 1), 1 - k / q + k**2)
  # The standard's high-pass has 1, -2, 1 above as it stands.
  top = (1.0, -2.0, 1.0) if above is None else tuple(value / below[0] for value in above)
  return [*top, 1.0, below[1] / below[0], below[2] / below[0]]


@dataclasses.dataclass(frozen=True)
class Level:
  """How loud a sound is, in LUFS (-inf: silence), and its largest sample, 1 at full scale."""

  loudness: float
  peak: float

  def gain(self, target: float = -16.0, ceiling: float = -1.0) -> float:
    """The factor that brings the sound to `target` LUFS, or as near as `ceiling` dBFS allows."""
    if not math.isfinite(self.loudness) or not self.peak:
      return 1.0
    return min(10 ** ((target - self.loudness) / 20), 10 ** (ceiling / 20) / self.peak)


def measure_loudness(chunks: Iterable[Float[np.ndarray, '_ c']], rate: int) -> Level:
  """Measures a sound that comes in pieces; memory grows by ten numbers a second.

  Args:
    chunks: pieces of the sound, in order, of one or two channels.
    rate: samples a second.

  Raises:
    DataError: there is nothing to measure, or a sample is not a number.
  """
  sections, state = k_weighting(rate), None
  powers, peak, rest = [], 0.0, np.zeros((0, 1))
  count = total = 0
  for chunk in chunks:
    if chunk.ndim != 2 or chunk.shape[1] not in (1, 2) or not np.isfinite(chunk).all():
      raise DataError(
        f'loudness is of finite numbers (samples, 1 or 2 channels), got {chunk.dtype} {chunk.shape}'
      )
    if not len(chunk):
      continue
    if state is None:
      state = np.zeros((len(sections), 2, chunk.shape[1]))
    heard, state = signal.sosfilt(sections, chunk.astype(np.float64), axis=0, zi=state)
    peak, total = max(peak, float(np.abs(chunk).max())), total + len(chunk)
    rest = np.concatenate([rest, (heard**2).sum(1, keepdims=True)])
    while len(rest) >= (size := round((count + 1) * rate / 10) - round(count * rate / 10)):
      powers.append(rest[:size].mean())
      rest, count = rest[size:], count + 1
  if not total:
    raise DataError('there is no sound to measure, it lasts 0 s')
  if len(powers) < _STEPS:  # shorter than a block: all of it is one
    size = rate / 10
    blocks = np.array([(sum(powers) * size + rest.sum()) / (len(powers) * size + len(rest))])
  else:
    blocks = np.convolve(powers, np.full(_STEPS, 1 / _STEPS), 'valid')
  return Level(_gated(blocks), peak)


def _gated(blocks: Float[np.ndarray, '_']) -> float:
  kept = blocks[blocks > _power(_SILENCE)]
  if not kept.size:
    return -math.inf
  kept = kept[kept > kept.mean() * 10 ** (_GATE / 10)]
  return _OFFSET + 10 * math.log10(kept.mean())


def _power(loudness: float) -> float:
  return 10 ** ((loudness - _OFFSET) / 10)


def loudness(sound: Float[np.ndarray, 's c'], rate: int) -> float:
  """The integrated loudness of a sound in LUFS, -inf if it is silent; see the head of this file."""
  return measure_loudness([sound], rate).loudness


def normalise(
  sound: Float[np.ndarray, 's c'], rate: int, target: float = -16.0, ceiling: float = -1.0
) -> Float[np.ndarray, 's c']:
  """Brings a sound to `target` LUFS, and then lowers it until no sample is above `ceiling` dBFS.

  One factor for the whole sound: nothing is limited or clipped, and silence stays silence. A sound
  that comes in pieces is measured first and scaled then: `amplified(chunks, measure(...).gain())`.
  """
  (amplified_sound,) = amplified([sound], measure_loudness([sound], rate).gain(target, ceiling))
  return amplified_sound


def amplified(
  chunks: Iterable[Float[np.ndarray, '_ c']], gain: float
) -> Iterator[Float[np.ndarray, '_ c']]:
  """Yields the pieces of a sound, each times `gain`."""
  for chunk in chunks:
    yield chunk * np.asarray(gain, chunk.dtype)
