"""Judges whose handwriting clips show, and in which pose; see `ReferencesJudge` of `judging.py`.

A reference is one picture of handwriting that training never saw, turned, re-weighted, recoloured
and moved; the caption says colour and motion and no number.
"""

import dataclasses
import functools
from collections.abc import Mapping, Sequence
from typing import ClassVar

import numpy as np

from mgjax.core.typing import Sample
from mgjax.lab.worlds.digits.captions import scene_caption
from mgjax.lab.worlds.digits.clips import Digits, one_of
from mgjax.lab.worlds.digits.handwriting import identities_of
from mgjax.lab.worlds.digits.judges.digit import DigitJudge, train_judge
from mgjax.lab.worlds.digits.judges.identity import IdentityJudge, candidates_for
from mgjax.lab.worlds.digits.judges.video import held_out_labels, indices_of, looks_of
from mgjax.lab.worlds.digits.scene import Scene
from mgjax.lab.worlds.judging import Asked, Videos

# Across which the place of a digit in motion is its own; what bounces has none.
_ACROSS = {'left': 'y', 'right': 'y', 'still': 'y', 'up': 'x', 'down': 'x', 'fall': 'x'}


@dataclasses.dataclass(frozen=True)
class DigitsReferences:
  """An 'identity' is one hand of 20, in a pose of clips; in 'any pose' what pastes has it too."""

  source: Digits  # of training

  attributes: ClassVar[tuple[str, ...]] = ('digit', 'colour', 'direction', 'identity', 'any pose')
  copied: ClassVar[tuple[str, ...]] = ('turn', 'weight', 'place')

  def asks(self, samples: int) -> list[Asked]:
    source = self._unseen
    places = indices_of(source, held_out_labels(looks_of(self.source), samples))
    scenes = [source.scene(place) for place in places]
    return [Asked(scene_caption(scene, source.numbered), scene) for scene in scenes]

  def clips(self, asked: Sequence[Asked]) -> list[Sample]:
    return [self._unseen.show(each.label) for each in asked]

  def ways(self, asked: Sequence[Asked]) -> dict[str, Videos]:
    """In another hand of the same digit, in which one of 20 is found by chance."""
    source = dataclasses.replace(self._unseen, extras=())
    return {
      'another hand (chance)': [source.show(_by_another(each.label))['video'] for each in asked]
    }

  def right(self, videos: Videos, asked: Sequence[Asked]) -> dict[str, list[bool]]:
    right: dict[str, list[bool]] = {name: [] for name in self.attributes}
    for video, (_, scene) in zip(videos, asked, strict=True):
      read = self._digits.read(video)
      (identity,) = scene.identities
      likeness = self._hands.find(video, candidates_for(identity))
      found = likeness.identity == identity
      right['digit'].append(read.digit == int(scene.number))
      right['colour'].append(read.colour == scene.colour)
      right['direction'].append(read.motion == scene.motion)
      right['identity'].append(found and self._hands.allows(likeness.pose))
      right['any pose'].append(found)
    return right

  def poses(self, videos: Videos, asked: Sequence[Asked]) -> Mapping[str, list[float]]:
    found: dict[str, list[float]] = {name: [] for name in self.copied}
    for video, (_, scene) in zip(videos, asked, strict=True):
      pose = self._hands.find(video, scene.identities).pose
      found['turn'].append(pose.turn)
      found['weight'].append(pose.weight)
      across = _ACROSS.get(scene.motion)
      found['place'].append(getattr(pose, across) if across else float('nan'))
    return found

  @property
  def _unseen(self) -> Digits:
    fields = self.source.validation(self.source.frames)
    more = {'extras': ('reference',), 'reference': 'other'}
    return dataclasses.replace(self.source, **fields | more)

  @functools.cached_property
  def _digits(self) -> DigitJudge:
    return train_judge(**looks_of(self.source, ('turns', 'weights')))

  @property
  def _hands(self) -> IdentityJudge:
    return IdentityJudge(self.source.turns, self.source.weights, self.source.digit_size)


def _by_another(scene: Scene) -> Scene:
  """The scene in another hand of the same digit, one of training."""
  generator = np.random.default_rng((scene.tiles, 2))
  another = one_of(identities_of('train', int(scene.number)), generator)
  return dataclasses.replace(scene, identities=(another,))
