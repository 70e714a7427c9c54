"""Re-ranks several candidate soundtracks and takes the best (Movie Gen §6: of 8).

A scorer judges whole candidates. The paper's are learned embeddings of audio, video and text; the
one built in here needs no weights: it compares onsets with abrupt changes of motion.
"""

from typing import Protocol, runtime_checkable

import numpy as np

from mgjax.core.errors import DataError
from mgjax.core.spectrum import magnitudes
from mgjax.core.typing import Float, UInt8

CANDIDATES = 8  # of which the report takes the best
ALIGNMENT_RATE = 25  # moments a second at which sound and picture are compared
_HOPS = 4  # looks at the sound a moment
_BANDS = 24  # from 60 Hz up, evenly spaced in log frequency
_FLOOR = 1e-6  # power of a band below which it is silent: 60 dB under full scale
_JUMP = 0.6  # log10 of the power by which a band has to rise to count: 6 dB
_MEMORY = (2, 7)  # looks back, begin and end, over whose loudest a band has to rise
_SIGHT = 32  # pixels of the shorter side at which motion is looked at
_NOISE = 3 / 255  # changes of a pixel that may be compression
_REST = 0.05  # heights a second that count as standing still
_STEADY = 0.25  # relative changes of velocity that may be errors of measurement
_EVENT = 0.05  # what of both curves counts as nothing happening


@runtime_checkable
class Scorer(Protocol):
  """Judges candidates; the higher, the better."""

  def __call__(
    self,
    sounds: Float[np.ndarray, 'n s c'],
    rate: int,
    *,
    caption: str = '',
    motion: Float[np.ndarray, ' t'] | None = None,
  ) -> Float[np.ndarray, ' n']:
    """Returns a number for each candidate.

    Args:
      sounds: the candidate tracks, in [-1, 1].
      rate: samples a second.
      motion: how abruptly the picture's motion changes, 25 times a second, from `motion_change`;
        None without a picture.
    """


def best_of(
  sounds: Float[np.ndarray, 'n s c'], rate: int, scorer: Scorer, **conditions
) -> tuple[int, Float[np.ndarray, ' n']]:
  """Returns the index of the best candidate, the first of equals, and all scores.

  A candidate that is not finite, or whose score is not, is never taken while there is another.
  Raises DataError if there is no candidate that is finite.
  """
  finite = np.isfinite(sounds).all((1, 2))
  if not finite.any():
    raise DataError(f'none of {len(sounds)} candidates is finite; look at the model')
  scores = np.full(len(sounds), -np.inf)
  scores[finite] = scorer(sounds[finite], rate, **conditions)
  scores = np.where(np.isnan(scores), -np.inf, scores)
  best = int(np.argmax(scores))
  return (best if finite[best] else int(np.argmax(finite))), scores


def count_candidates(candidates: int | None, scorer: Scorer | None, pictures: bool) -> int:
  """Returns how many candidates are made: as asked for, by default 8 where one can choose."""
  if candidates is not None:
    return candidates
  return CANDIDATES if pictures or scorer is not None else 1


class OnsetAlignment:
  """Whether sound begins when motion changes; 1 is perfect, 0 never at the same time.

  With o the onset strength of the sound and m the change of the motion, both in [0, 1], 25 times a
  second, and smoothed so that a neighbouring moment counts half:
  `(o . m + e) / sqrt((o . o + e) (m . m + e))`. It is their cosine, but where neither has an event
  it is 1: nothing moves abruptly and nothing is heard. A silent sound for a picture with events is
  worse than a right one and better than one that is heard at other times.
  """

  def __call__(
    self,
    sounds: Float[np.ndarray, 'n s c'],
    rate: int,
    *,
    caption: str = '',
    motion: Float[np.ndarray, ' t'] | None = None,
  ) -> Float[np.ndarray, ' n']:
    """Scores as `Scorer` says; without a picture all alike."""
    if motion is None:
      return np.zeros(len(sounds))
    onsets = _smooth(onset_strength(sounds, rate))
    events = _smooth(np.asarray(motion, np.float64)[None])
    length = min(onsets.shape[1], events.shape[1])
    onsets, events = onsets[:, :length], events[:, :length]
    both = (onsets * events).sum(1) + _EVENT
    return both / np.sqrt(((onsets**2).sum(1) + _EVENT) * ((events**2).sum(1) + _EVENT))


def onset_strength(sounds: Float[np.ndarray, 'n s c'], rate: int) -> Float[np.ndarray, 'n t']:
  """Returns how strongly something begins to sound, in [0, 1), 25 times a second.

  The power P_k of bands of frequency is taken every 10 ms, over 20 ms, of all channels together.
  A band rises by `r_k = max(0, log10(P_k + p) - max_j log10(P_kj + p) - 0.6)`, where j goes over
  the previous 60 ms and p is 60 dB below full scale, so that steady noise does not rise. The result
  is `o = r / (1 + r)` of the sum of the bands, the largest of each 40 ms. What is heard from the
  first moment on has not begun.
  """
  hop = max(rate // (ALIGNMENT_RATE * _HOPS), 1)
  size = 2 * hop
  sounds = np.asarray(sounds, np.float32)
  count = -(-sounds.shape[1] // (hop * _HOPS)) * _HOPS
  sounds = np.pad(sounds, ((0, 0), (0, max(size - sounds.shape[1], 0)), (0, 0)))
  hann = np.hanning(size + 2)[1:-1].astype(np.float32)
  frequency = np.fft.rfftfreq(size, 1 / rate)
  edges = np.geomspace(60, rate / 2, _BANDS + 1)
  band = np.clip(np.searchsorted(edges, frequency, side='right') - 1, 0, _BANDS - 1)
  member = np.eye(_BANDS)[band] * (frequency >= edges[0])[:, None]

  levels = np.empty((len(sounds), count, _BANDS))
  for row, sound in enumerate(sounds):  # one at a time: a spectrum takes much more than a sound
    starts = np.arange(0, len(sound) - size + 1, hop)[:count]
    power = np.sum(magnitudes(sound, hann, starts) ** 2, axis=1, dtype=np.float64)
    looked = np.log10((power / hann.sum() ** 2 * 4) @ member + _FLOOR)
    levels[row] = np.pad(looked, ((0, count - len(looked)), (0, 0)), mode='edge')

  begin, end = _MEMORY
  before = np.pad(levels, ((0, 0), (end - 1, 0), (0, 0)), mode='edge')  # it may have sounded before
  shifts = [before[:, end - 1 - back : end - 1 - back + count] for back in range(begin, end)]
  rise = np.maximum(levels - np.max(shifts, axis=0) - _JUMP, 0).sum(-1)
  strength = rise / (1 + rise)
  return strength.reshape(len(sounds), -1, _HOPS).max(-1)


def velocities(video: UInt8[np.ndarray, 't h w 3'], fps: float) -> Float[np.ndarray, 'u 2']:
  """Returns the velocity of what moves between neighbouring frames, in heights a second.

  One velocity fits all pixels that change, by least squares with the change as a weight (Lucas and
  Kanade, 1981): `sum w g g^T v = -sum w g d`, g the gradient of a pixel and d its change.
  """
  frames = _small(video)
  change = np.diff(frames, axis=0)
  weight = np.maximum(np.abs(change).mean(-1, keepdims=True) - _NOISE, 0)
  middle = (frames[1:] + frames[:-1]) / 2
  gradient = np.stack(np.gradient(middle, axis=(1, 2)), axis=-1)  # (t h w 3 2)
  weighted = gradient * weight[..., None]
  square = np.einsum('thwci,thwcj->tij', weighted, gradient)
  right = -np.einsum('thwci,thwc->ti', weighted, change)
  damping = 1e-3 * np.trace(square, axis1=1, axis2=2) + 1e-4
  square += damping[:, None, None] * np.eye(2)[None]
  return np.linalg.solve(square, right[..., None])[..., 0] * fps / frames.shape[1]


def motion_change(
  velocity: Float[np.ndarray, 'u 2'], fps: float, count: int
) -> Float[np.ndarray, ' t']:
  """Returns how abruptly motion changes, in [0, 1], at `count` moments, 25 a second.

  `m = |v' - v| / (|v'| + |v| + v_0)` at the frame between two velocities: 1 where something stops,
  starts or turns back, 0 where it goes straight on; what may be errors of measurement counts as 0.
  """
  size = np.linalg.norm(velocity, axis=1)
  turn = np.linalg.norm(np.diff(velocity, axis=0), axis=1) / (size[1:] + size[:-1] + _REST)
  turn = np.maximum(turn - _STEADY, 0) / (1 - _STEADY)
  moments = np.zeros(count)
  # A frame is on show from its time on; of several within one moment the most abrupt counts.
  slots = np.floor((1 + np.arange(len(turn))) * ALIGNMENT_RATE / fps + 1e-6).astype(int)
  inside = slots < count
  np.maximum.at(moments, slots[inside], turn[inside])
  return moments


def _smooth(curves: Float[np.ndarray, 'n t']) -> Float[np.ndarray, 'n t']:
  padded = np.pad(curves, ((0, 0), (1, 1)))
  return (padded[:, :-2] + padded[:, 2:]) / 2 + padded[:, 1:-1]


def _small(video: UInt8[np.ndarray, 't h w 3']) -> Float[np.ndarray, 't i j 3']:
  """Downsamples by averaging squares until the shorter side is small, and blurs slightly."""
  step = max(min(video.shape[1:3]) // _SIGHT, 1)
  height, width = (size // step for size in video.shape[1:3])
  cut = video[:, : height * step, : width * step]
  cut = cut.reshape(len(video), height, step, width, step, 3)
  small = cut.mean((2, 4), dtype=np.float32) / 255
  for axis in (1, 2):
    edges = [(1, 1) if dim == axis else (0, 0) for dim in range(4)]
    padded = np.pad(small, edges, mode='edge')
    first, middle, last = (np.take(padded, range(i, i + small.shape[axis]), axis) for i in range(3))
    small = (first + 2 * middle + last) / 4
  return small
