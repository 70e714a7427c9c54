"""Judges audio of solids: reads times, materials and strengths of contacts from the waveform.

Onsets (`lab/worlds/onsets.py`) are matched with contacts one to one. The decay after an onset is
the power of bands in windows further and further away from it. A support vector classifier that was
trained on impacts of another split reads it. The loudness of an onset is its peak. Contacts that
cannot be heard, see `audible`, are not asked for.

The score is a proxy: it hears the audio of these clips, and no other. Report ceiling and floor
beside it, which say what the score can be.
"""

import dataclasses
import functools
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import ClassVar

import numpy as np

from mgjax.core.configuration.keys import Fields
from mgjax.core.typing import Bool, Float, Int, Sample
from mgjax.data.synthetic_datasets import RATE
from mgjax.lab.worlds.judging import Column
from mgjax.lab.worlds.onsets import apart, matched, mono_of, onsets_of, share_of, tally
from mgjax.lab.worlds.solids.clips import Solids

AUDIBLE = 0.01  # amplitude, 40 dB below full scale; onsets are looked for down to 60
MASKED, MASKING = 0.25, 0.1  # of the loudness of a contact so many seconds before, which drowns it
_SHARE = 0.05  # of the steepest rise of a sound, that another must reach
_RISE = 38.0  # dB, all bands together, at least; what rolls wavers by less
_PEAK = 0.004  # seconds after an onset in which its peak is
_WINDOWS = ((0.003, 0.02), (0.02, 0.05), (0.05, 0.1), (0.1, 0.2))  # seconds after an onset
_EDGES = np.geomspace(60, 16_000, 25)  # Hz, of bands
_QUIET = 1e-7  # power of a band, 70 dB below full scale
_LESSONS = 800  # clips that a judge has heard
_SHORTEST = 0.002  # seconds of a window that a later onset may leave


@dataclasses.dataclass(frozen=True)
class ContactsHeard:
  """The onsets of one sound matched with its contacts."""

  errors: Float[np.ndarray, '_']  # seconds by which each is late
  missed: int  # contacts without an onset
  extra: int  # onsets without a contact
  right: Bool[np.ndarray, '_']  # whether the material heard is one of the two
  louder: Float[np.ndarray, '_ 2']  # log of the amplitude that is heard, and of the true one


@dataclasses.dataclass(frozen=True)
class ContactScores:
  """What a set of audio scores; nan where there was nothing to score."""

  onset_error: float  # median |error| of the matched onsets, in ms
  missed: float  # share of the contacts that are not heard
  extra: float  # share of what is heard that is no contact
  material: float  # share of the matched onsets of one of both materials
  strength: float  # rank correlation of what is heard with how loud contacts are
  silence: float  # share of the clips without a contact in which nothing is heard
  clips: int


@dataclasses.dataclass(frozen=True)
class SolidsSoundJudge:
  """Hears solids, see `lab/worlds/judging.py`; `name`: a split to learn from."""

  name: str = 'judge'

  columns: ClassVar[Mapping[str, Column]] = {
    'onset_error': Column('onset error, ms', 1, -1),
    'missed': Column('missed, %', 100, -1),
    'extra': Column('extra, %', 100, -1),
    'material': Column('right material, %', 100, 1),
    'strength': Column('rank of strength', 1, 1),
    'silence': Column('silence kept, %', 100, 1),
  }

  def read(self, sounds: Iterable[np.ndarray], samples: Iterable[Mapping]) -> list[ContactsHeard]:
    """Compares audio with the 'events', 'loudness' and 'materials' of samples."""
    return [self._heard(*pair) for pair in zip(sounds, samples, strict=True)]

  def scores(self, readings: Sequence[ContactsHeard]) -> ContactScores:
    """Summarises readings. Raises DataError if there are none."""
    from scipy.stats import spearmanr

    rates = tally(readings)
    right = np.concatenate([reading.right for reading in readings])
    louder = np.concatenate([reading.louder for reading in readings])
    varied = len(louder) > 2 and np.ptp(louder, axis=0).all()
    return ContactScores(
      **rates,
      material=share_of(int(right.sum()), len(right)),
      strength=float(spearmanr(*louder.T).statistic) if varied else np.nan,
    )

  def long_clips(self, source: Solids, times: int, count: int) -> list[Sample]:
    """The clips in which most contacts are heard, of ten times as many."""
    del times
    unseen = dataclasses.replace(source, split='in_distribution', length=10 * count)
    counts = [len(unseen.labels(unseen.scene(index)).contacts) for index in range(len(unseen))]
    return [unseen[int(index)] for index in np.argsort(counts)[::-1][:count]]

  def _heard(self, sound: np.ndarray, sample: Fields) -> ContactsHeard:
    mono = mono_of(sound)
    onsets = _onsets(mono)
    clear = audible(sample['events'], sample['loudness'])
    rows, indices = matched(onsets, sample['events'][clear])
    indices = clear[indices]
    features = features_of(mono, onsets)[rows]
    predicted = _classifier(self.name)(features) if len(rows) else np.zeros(0, int)
    true = sample['materials'][indices]
    peaks = np.array([_peak(mono, onset) for onset in onsets[rows]])
    return ContactsHeard(
      onsets[rows] - sample['events'][indices],
      len(clear) - len(rows),
      len(onsets) - len(rows),
      (predicted[:, None] == true).any(1),
      np.log(np.stack([peaks + 1e-6, sample['loudness'][indices]], -1)),
    )


def audible(
  events: Float[np.ndarray, '_'], loudness: Float[np.ndarray, '_']
) -> Int[np.ndarray, '_']:
  """Returns the indices of contacts that are loud enough, 30 ms apart, and not masked."""
  before = (events[:, None] - events > 0) & (events[:, None] - events < MASKING)
  louder = np.where(before, loudness, 0).max(1, initial=0)
  loud = np.flatnonzero((loudness >= AUDIBLE) & (loudness > MASKED * louder))
  return loud[apart(events[loud])]


def _onsets(mono: np.ndarray) -> Float[np.ndarray, '_']:
  return onsets_of(mono, _SHARE, _RISE, began=True)


def features_of(
  mono: Float[np.ndarray, 's'], onsets: Float[np.ndarray, '_']
) -> Float[np.ndarray, '_ d']:
  """Log power of bands in windows after onsets, less the loudest; a next onset ends a window."""
  ends = np.append(onsets, np.inf)[1:]
  rows = [_ringing(mono, onset, end) for onset, end in zip(onsets, ends, strict=True)]
  return np.stack(rows) if rows else np.zeros((0, len(_WINDOWS) * (len(_EDGES) - 1)))


def _ringing(mono: np.ndarray, onset: float, end: float) -> Float[np.ndarray, 'd']:
  powers = []
  for first, last in _WINDOWS:
    part = mono[round((onset + first) * RATE) : round(min(onset + last, end) * RATE)]
    if len(part) < _SHORTEST * RATE:
      powers.append(powers[-1] if powers else np.full(len(_EDGES) - 1, _QUIET))
      continue
    window = np.hanning(len(part))
    power = np.abs(np.fft.rfft(part * window)) ** 2 / np.square(window).sum()
    at = np.fft.rfftfreq(len(part), 1 / RATE)
    bins = np.searchsorted(at, _EDGES)
    sums = np.concatenate([[0], np.cumsum(power)])
    # A band between two frequencies of the transform has what the nearest holds.
    upper = np.maximum(bins[1:], bins[:-1] + 1)
    powers.append((sums[np.minimum(upper, len(power))] - sums[bins[:-1]]) / len(part) + _QUIET)
  logs = np.log(np.stack(powers))
  return (logs - logs.max()).ravel()


def _peak(mono: np.ndarray, onset: float) -> float:
  first = max(0, round((onset - _PEAK / 2) * RATE))
  return float(np.abs(mono[first : first + round(1.5 * _PEAK * RATE)]).max(initial=0))


@functools.cache
def _classifier(split: str) -> Callable[[np.ndarray], Int[np.ndarray, '_']]:
  """Learns materials from contacts of a split: of one material, in clean and degraded audio."""
  from sklearn.svm import SVC

  source = Solids(split=split, sound=True, length=_LESSONS)
  generator = np.random.default_rng(0)
  rows = []
  materials = []
  for index in range(_LESSONS):
    sample = source.listen(index)
    mono = mono_of(sample['audio'])
    if index % 2:
      mono = mono + generator.uniform(0, 3e-3) * generator.standard_normal(len(mono))
    onsets = _onsets(mono.astype(np.float32))
    matched_rows, indices = matched(onsets, sample['events'])
    features = features_of(mono, onsets)[matched_rows]
    for row, (first, second) in zip(features, sample['materials'][indices], strict=True):
      if second in (-1, first):
        rows.append(row)
        materials.append(first)
  return SVC(C=10).fit(np.stack(rows), np.array(materials)).predict
