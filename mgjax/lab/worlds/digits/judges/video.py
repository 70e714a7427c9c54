"""Judges videos of moving digits and of signs, see `lab/worlds/judging.py`."""

import collections
import dataclasses
import functools
from collections.abc import Sequence
from typing import Any

import numpy as np

from mgjax.core.configuration.keys import JSON, Fields
from mgjax.core.errors import ConfigError, DataError
from mgjax.core.typing import Float, Sample
from mgjax.lab.worlds.digits.clips import Digits, all_captions, digit_caption, is_held_out
from mgjax.lab.worlds.digits.judges import digit, features, sign
from mgjax.lab.worlds.digits.scene import COLOURS, MOTIONS
from mgjax.lab.worlds.digits.signs import Signs, numbers, sign_caption
from mgjax.lab.worlds.judging import Asked, Prompt, Videos

LOOKS = ('frames', 'size', 'colours', 'motions', 'background', 'jitter', 'digit_size', 'laps')
REAL = 500  # signs that say what can be read of real ones
_KINDS = {'seen': 'seen in training', 'held_out': 'held out'}  # of signs' numbers


def looks_of(source: Digits, more: Sequence[str] = ()) -> JSON:
  """What of a source of training says how its clips look."""
  return {name: getattr(source, name) for name in (*LOOKS, *more)}


@dataclasses.dataclass(frozen=True)
class DigitsVideoJudge:
  """Asks for every held-out caption equally often, at least once."""

  source: Digits  # of training

  @property
  def factors(self) -> dict[str, str]:
    return {name: name for name in ('digit', 'colour', 'direction', 'all')}

  def asks(self, samples: int) -> dict[str, list[Asked]]:
    labels = held_out_labels(looks_of(self.source), samples)
    return {'held-out captions': [Asked(label[3], label) for label in labels]}

  def right(self, videos: Videos, asked: Sequence[Asked]) -> dict[str, Float[np.ndarray, 'b']]:
    found = self._judge.right(videos, [each.label for each in asked])
    return {name: each.astype(float) for name, each in found.items()}

  def references(self, group: str) -> tuple[dict[str, float], dict[str, float]]:
    del group
    return _references(self.source)

  def clips(self, asked: Sequence[Asked]) -> list[Sample]:
    """Clips of held-out handwriting. Raises ConfigError if there are too few of a caption."""
    unseen = dataclasses.replace(self.source, **self.source.validation(self.source.frames))
    return clips_of(unseen, [each.label for each in asked])

  def variants(self, asked: Sequence[Asked]) -> dict[str, list[str]]:
    """Captions of the next digit, colour and direction."""
    ways = {'digit': range(10), 'colour': self.source.colours, 'direction': self.source.motions}
    found: dict[str, list[str]] = {name: [] for name in ways}
    for each in asked:
      for place, (name, values) in enumerate(ways.items()):
        label = list(each.label[:3])
        label[place] = values[(list(values).index(label[place]) + 1) % len(values)]
        found[name].append(digit_caption(*label))
    return found

  def diversity(self, videos: Videos, asked: Sequence[Asked]) -> float:
    return digit.diversity(self._judge, videos, [each.label for each in asked])

  def features(self, videos: Videos) -> Float[np.ndarray, 'b d']:
    return _features(self.source).rows(videos)

  @property
  def _judge(self) -> digit.DigitJudge:
    return _judge_of(self.source)


class DigitsVotes(DigitsVideoJudge):
  """The judge of votes, which has learnt from other handwriting than evaluation's."""

  @property
  def _judge(self) -> digit.DigitJudge:
    return _judge_of(self.source, split='test', seed=1)


class DigitsPrompts:
  """Held-out captions, or those of training, each as often as the others but for one."""

  def rows(self, count: int, seed: int, trained: bool = False) -> list[Prompt]:
    labels = held_out_labels(looks_of(Digits()), count, trained)
    order = np.random.default_rng(seed).permutation(count).tolist()
    return [Prompt(labels[place][3], labels[place][1:3], '') for place in order]

  def asked(self, caption: str, scene: str) -> Asked:
    del scene
    if caption not in (known := _labels()):
      raise DataError(f'{caption[:40]!r} is no caption of the moving digits')
    return Asked(caption, known[caption])


@functools.cache
def _labels() -> dict[str, tuple[int, str, str, str]]:
  return {label[3]: label for label in all_captions(tuple(COLOURS), (*MOTIONS, ''))}


@functools.lru_cache(maxsize=3)  # several ways to sample one model are judged alike
def _judge_of(source: Digits, **how: Any) -> digit.DigitJudge:
  return digit.train_judge(**looks_of(source), **how)


@functools.lru_cache(maxsize=2)
def _references(source: Digits) -> tuple[dict[str, float], dict[str, float]]:
  looks, read = looks_of(source), _judge_of(source)
  return digit.judge_ceiling(read, **looks), digit.judge_floor(read, **looks)


@functools.lru_cache(maxsize=2)
def _features(source: Digits) -> features.DigitFeatures:
  return features.fit_features(**looks_of(source))


def held_out_labels(world: Fields, samples: int, trained: bool = False) -> list[tuple]:
  """Returns captions that are not in training, or are, one for every sample, each at least once."""
  captions = all_captions(world['colours'], world['motions'])
  wanted = [caption for caption in captions if is_held_out(*caption[:3]) != trained]
  return [wanted[index % len(wanted)] for index in range(max(samples, len(wanted)))]


def clips_of(source: Digits, labels: Sequence[tuple]) -> list[Sample]:
  """Returns a clip of each label (digit, colour, motion, ...), see `indices_of`."""
  return [source[index] for index in indices_of(source, labels)]


def indices_of(source: Digits, labels: Sequence[tuple]) -> list[int]:
  """Returns indices of a clip of each label, none twice; ConfigError if there are too few."""
  wanted = collections.defaultdict(list)
  for place, label in enumerate(labels):
    wanted[tuple(label[:3])].append(place)
  found: dict[int, int] = {}
  for index in range(len(source)):
    if len(found) == len(labels):
      break
    scene = source.scene(index)
    if places := wanted[(int(scene.number), scene.colour, scene.motion)]:
      found[places.pop()] = index
  if len(found) < len(labels):
    raise ConfigError(f'{len(labels)} clips are asked for, the data have {len(found)} of them')
  return [found[place] for place in range(len(labels))]


@dataclasses.dataclass(frozen=True)
class SignsVideoJudge:
  """Asks for numbers of two digits or more that training showed, and for as many held out."""

  source: Signs  # of training

  def __post_init__(self):
    if not self._lengths:
      raise ConfigError(
        f'data.signs.lengths={self.source.lengths}: no number is held out; train on more digits'
      )

  @property
  def factors(self) -> dict[str, str]:
    lengths = [f'{length} digits' for length in sorted(self._lengths)]
    return {name: name for name in ('characters', 'number', *lengths, 'colour', 'direction')}

  def asks(self, samples: int) -> dict[str, list[Asked]]:
    motions = self.source.motions if self.source.frames > 1 else ('',)
    return {
      title: [
        Asked(sign_caption(*label), label)
        for label in _evenly(kind, self._lengths, samples, self.source.colours, motions)
      ]
      for kind, title in _KINDS.items()
    }

  def right(self, videos: Videos, asked: Sequence[Asked]) -> dict[str, Float[np.ndarray, 'b']]:
    found = _sign_judge_of(self.source).read_all(videos, [each.label for each in asked])
    return {name: np.array(each, float) for name, each in found.items()}

  def references(self, group: str) -> tuple[dict[str, float], dict[str, float]]:
    """Of signs in handwriting that the judge never saw, and each under the next one's caption."""
    del group
    return _sign_references(self.source, self._lengths)

  def clips(self, asked: Sequence[Asked]) -> list[Sample]:
    raise ConfigError('models of signs read captions alone; expected a text-to-video model')

  @property
  def _lengths(self) -> tuple[int, ...]:
    return tuple(length for length in self.source.lengths if length > 1)


@functools.lru_cache(maxsize=2)
def _sign_judge_of(source: Signs) -> sign.SignJudge:
  return sign.train_sign_judge(**looks_of(source, ('lengths',)))


@functools.lru_cache(maxsize=2)
def _sign_references(
  source: Signs, lengths: tuple[int, ...]
) -> tuple[dict[str, float], dict[str, float]]:
  looks = looks_of(source) | {'lengths': lengths}
  real = list(Signs(split='test', captions='all', length=REAL, **looks))
  labels = sign.sign_labels(real)
  videos = [sample['video'] for sample in real]
  read = _sign_judge_of(source)
  return read.score(videos, labels), read.score(videos, labels[1:] + labels[:1])


def _evenly(captions, lengths, samples, colours, motions) -> list[sign.SignReading]:
  """Numbers of every length alike, evenly spread, in colours and motions by turns."""
  labels = []
  for index in range(samples):
    turn, place = divmod(index, len(lengths))
    known = numbers(lengths[place], captions)
    turns = -(-(samples - place) // len(lengths))
    number = known[turn * len(known) // turns % len(known)]
    colour = colours[turn % len(colours)]
    motion = motions[turn // len(colours) % len(motions)]
    labels.append(sign.SignReading(number, colour, motion))
  return labels
