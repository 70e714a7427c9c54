"""Judges videos of moving digits and of signs, see `lab/worlds/judging.py`."""

import collections
import dataclasses
import functools
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

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


def looks_of(source: Digits, extra: Sequence[str] = ()) -> dict[str, Any]:
  """Returns the fields of a training source that determine how its clips look."""
  return {name: getattr(source, name) for name in (*LOOKS, *extra)}


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

  def right(self, videos: Videos, requests: Sequence[Asked]) -> dict[str, Float[np.ndarray, 'b']]:
    scores = self._judge.right(videos, [request.label for request in requests])
    return {name: values.astype(float) for name, values in scores.items()}

  def references(self, group: str) -> tuple[dict[str, float], dict[str, float]]:
    del group
    return _references(self.source)

  def clips(self, requests: Sequence[Asked]) -> list[dict[str, Any]]:
    """Returns clips of held-out handwriting. Raises ConfigError if a caption has too few."""
    unseen = dataclasses.replace(self.source, **self.source.validation(self.source.frames))
    return clips_of(unseen, [request.label for request in requests])

  def variants(self, requests: Sequence[Asked]) -> dict[str, list[str]]:
    """Returns captions of the next digit, colour and direction."""
    ways = {'digit': range(10), 'colour': self.source.colours, 'direction': self.source.motions}
    captions: dict[str, list[str]] = {name: [] for name in ways}
    for request in requests:
      for index, (name, values) in enumerate(ways.items()):
        label = list(request.label[:3])
        label[index] = values[(list(values).index(label[index]) + 1) % len(values)]
        captions[name].append(digit_caption(*label))
    return captions

  def diversity(self, videos: Videos, requests: Sequence[Asked]) -> float:
    return digit.diversity(self._judge, videos, [request.label for request in requests])

  def features(self, videos: Videos) -> Float[np.ndarray, 'b d']:
    return _features(self.source).rows(videos)

  @property
  def _judge(self) -> digit.DigitJudge:
    return _judge_of(self.source)


class DigitsVotes(DigitsVideoJudge):
  """The judge of votes, which has learned from other handwriting than evaluation's."""

  @property
  def _judge(self) -> digit.DigitJudge:
    return _judge_of(self.source, split='test', seed=1)


class DigitsPrompts:
  """Held-out captions, or those of training, each as often as the others but for one."""

  def rows(self, count: int, seed: int, trained: bool = False) -> list[Prompt]:
    labels = held_out_labels(looks_of(Digits()), count, trained)
    order = np.random.default_rng(seed).permutation(count).tolist()
    return [Prompt(labels[index][3], labels[index][1:3], '') for index in order]

  def asked(self, caption: str, scene: str) -> Asked:
    del scene
    if caption not in (labels := _labels()):
      raise DataError(f'{caption[:40]!r} is no caption of the moving digits')
    return Asked(caption, labels[caption])


@functools.cache
def _labels() -> dict[str, tuple[int, str, str, str]]:
  return {label[3]: label for label in all_captions(tuple(COLOURS), (*MOTIONS, ''))}


@functools.lru_cache(maxsize=3)  # several ways to sample one model are judged alike
def _judge_of(source: Digits, **how: Any) -> digit.DigitJudge:
  return digit.train_judge(**looks_of(source), **how)


@functools.lru_cache(maxsize=2)
def _references(source: Digits) -> tuple[dict[str, float], dict[str, float]]:
  looks, judge = looks_of(source), _judge_of(source)
  return digit.judge_ceiling(judge, **looks), digit.judge_floor(judge, **looks)


@functools.lru_cache(maxsize=2)
def _features(source: Digits) -> features.DigitFeatures:
  return features.fit_features(**looks_of(source))


def held_out_labels(world: Mapping[str, Any], samples: int, trained: bool = False) -> list[tuple]:
  """Returns held-out captions, or those of training, one a sample and each at least once."""
  captions = all_captions(world['colours'], world['motions'])
  chosen = [caption for caption in captions if is_held_out(*caption[:3]) != trained]
  return [chosen[index % len(chosen)] for index in range(max(samples, len(chosen)))]


def clips_of(source: Digits, labels: Sequence[tuple]) -> list[Sample]:
  """Returns a clip of each label (digit, colour, motion, ...), see `indices_of`."""
  return [source[index] for index in indices_of(source, labels)]


def indices_of(source: Digits, labels: Sequence[tuple]) -> list[int]:
  """Returns the index of a clip for each label, none twice; ConfigError if there are too few."""
  positions_of = collections.defaultdict(list)
  for position, label in enumerate(labels):
    positions_of[tuple(label[:3])].append(position)
  index_of: dict[int, int] = {}
  for index in range(len(source)):
    if len(index_of) == len(labels):
      break
    scene = source.scene(index)
    if positions := positions_of[(int(scene.number), scene.colour, scene.motion)]:
      index_of[positions.pop()] = index
  if len(index_of) < len(labels):
    raise ConfigError(f'{len(labels)} clips are asked for, the data have {len(index_of)} of them')
  return [index_of[position] for position in range(len(labels))]


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

  def right(self, videos: Videos, requests: Sequence[Asked]) -> dict[str, Float[np.ndarray, 'b']]:
    scores = _sign_judge_of(self.source).read_all(videos, [request.label for request in requests])
    return {name: np.array(values, float) for name, values in scores.items()}

  def references(self, group: str) -> tuple[dict[str, float], dict[str, float]]:
    """Of signs in handwriting that the judge never saw, and each under the next one's caption."""
    del group
    return _sign_references(self.source, self._lengths)

  def clips(self, requests: Sequence[Asked]) -> list[dict[str, Any]]:
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
  judge = _sign_judge_of(source)
  return judge.score(videos, labels), judge.score(videos, labels[1:] + labels[:1])


def _evenly(captions, lengths, samples, colours, motions) -> list[sign.SignReading]:
  """Returns labels with equally many numbers of every length, cycling colours and motions."""
  labels = []
  for index in range(samples):
    turn, column = divmod(index, len(lengths))
    of_length = numbers(lengths[column], captions)
    turns = -(-(samples - column) // len(lengths))
    number = of_length[turn * len(of_length) // turns % len(of_length)]
    colour = colours[turn % len(colours)]
    motion = motions[turn // len(colours) % len(motions)]
    labels.append(sign.SignReading(number, colour, motion))
  return labels
