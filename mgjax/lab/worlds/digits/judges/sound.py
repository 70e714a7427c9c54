"""Judges audio of moving digits: reads onsets, tones and silence back from the waveform.

Onsets (`lab/worlds/onsets.py`) are matched with the true events one to one. The tone after an onset
is the one of `TONES` that holds most of its power.

The score is a proxy: it hears the audio of these clips, and no other. Report
`ceiling` and `floor` beside it, which say what the score can be.
"""

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from typing import ClassVar

import numpy as np

from mgjax.core.typing import Float, Int, Sample
from mgjax.data.synthetic_datasets import RATE
from mgjax.lab.worlds.digits.clips import Digits
from mgjax.lab.worlds.digits.sounds import TONES
from mgjax.lab.worlds.judging import Column
from mgjax.lab.worlds.onsets import FLOOR, apart, matched, mono_of, onsets_of, share_of, tally

_SHARE = 0.35  # of the steepest rise of a sound, that another must reach
_TONE = 0.1  # of the power after an onset that a tone must hold
_AFTER = (0.006, 0.15)  # seconds after an onset, between which its tone is looked for


@dataclasses.dataclass(frozen=True)
class SoundEvents:
  """Detected onsets of a sound in seconds, and their tones: 0 to 9, -1 where none stands out."""

  onsets: Float[np.ndarray, '_']
  tones: Int[np.ndarray, '_']


def hear(sound: Float[np.ndarray, 's c']) -> SoundEvents:
  """Reads onsets and tones from 48 kHz, channels averaged. Raises DataError if not finite."""
  mono = mono_of(sound)
  onsets = onsets_of(mono, _SHARE)
  ends = np.append(onsets, np.inf)[1:]
  tones = [_tone(mono, onset, end) for onset, end in zip(onsets, ends, strict=True)]
  return SoundEvents(onsets, np.array(tones, int))


@dataclasses.dataclass(frozen=True)
class SoundReading:
  """The detected events of one sound matched with the true ones."""

  # Seconds by which each matched onset is late, negative if it is early.
  errors: Float[np.ndarray, '_']
  missed: int  # events without an onset
  extra: int  # onsets without an event
  tones: Int[np.ndarray, '_']  # tone heard after each matched onset, see `SoundEvents`
  digit: int  # whose tone it should be


def judge_sound(
  sound: Float[np.ndarray, 's c'], events: Float[np.ndarray, '_'], digit: int
) -> SoundReading:
  """Compares what a sound of 48 kHz says with the events (seconds, in order) and digit to be heard.

  Events less than 30 ms after the one before are part of it. As many onsets as possible are
  matched, none further than 150 ms from its event, so that the errors sum to the least.
  """
  heard_sound = hear(sound)
  events = events[apart(events)]
  rows, columns = matched(heard_sound.onsets, events)
  return SoundReading(
    errors=heard_sound.onsets[rows] - events[columns],
    missed=len(events) - len(rows),
    extra=len(heard_sound.onsets) - len(rows),
    tones=heard_sound.tones[rows],
    digit=digit,
  )


@dataclasses.dataclass(frozen=True)
class SoundScores:
  """What a set of audio scores; nan where there was nothing to score."""

  onset_error: float  # median |error| of the matched onsets, in ms
  missed: float  # share of the events that are not heard
  extra: float  # share of what is heard that is no event
  tone: float  # share of the matched onsets whose tone is the digit's
  silence: float  # share of the clips without an event in which nothing is heard
  clips: int  # how many sounds were judged


def judge_sounds(readings: Sequence[SoundReading]) -> SoundScores:
  """Sums up readings of `judge_sound`. Raises DataError if there are none."""
  rates = tally(readings)
  right = np.concatenate([reading.tones == reading.digit for reading in readings])
  return SoundScores(**rates, tone=share_of(int(right.sum()), len(right)))


@dataclasses.dataclass(frozen=True)
class DigitsSoundJudge:
  """Hears digits for `mgjax.lab.evaluation`, see `lab/worlds/judging.py`."""

  columns: ClassVar[Mapping[str, Column]] = {
    'onset_error': Column('onset error, ms', 1, -1),
    'missed': Column('missed, %', 100, -1),
    'extra': Column('extra, %', 100, -1),
    'tone': Column('right tone, %', 100, 1),
    'silence': Column('silence kept, %', 100, 1),
  }

  def read(self, sounds: Iterable[np.ndarray], samples: Iterable[Mapping]) -> list[SoundReading]:
    pairs = zip(sounds, samples, strict=True)
    return [judge_sound(sound, sample['events'], sample['digit']) for sound, sample in pairs]

  scores = staticmethod(judge_sounds)

  def long_clips(self, source: Digits, times: int, count: int) -> list[Sample]:
    """Digits of unseen handwriting that bounce on and on."""
    bouncing = dataclasses.replace(
      source, split='test', captions='all', motions=('bounce',), laps=times, length=count
    )
    return [bouncing[index] for index in range(count)]


def _tone(mono: np.ndarray, onset: float, following: float) -> int:
  first = round((onset + _AFTER[0]) * RATE)
  part = mono[first : round(min(onset + _AFTER[1], following) * RATE)]
  energy = float((part**2).sum())
  if len(part) < 64 or energy / len(part) < FLOOR:
    return -1
  window = np.hanning(len(part))
  time = np.arange(len(part)) / RATE
  waves = np.exp(-2j * np.pi * np.outer(TONES, time)) * window
  power = np.abs(waves @ part) ** 2 * 2 / (window**2).sum()
  best = int(power.argmax())
  return best if power[best] > _TONE * energy else -1
