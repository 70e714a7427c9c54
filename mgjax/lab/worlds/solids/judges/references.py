"""Judges clips of the object of a reference; see `ReferencesJudge` of `lab/worlds/judging.py`.

Captions say 'this object' and how it moves, and nothing of how it looks. Which object of many it
is, an embedding says (`launch.evaluate --clip`); here stand the looks that the judge of clips
reads, and whether the light of the reference and its place are copied.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import ClassVar

import numpy as np

from mgjax.core.typing import Sample
from mgjax.lab.worlds.judging import Asked, Videos
from mgjax.lab.worlds.solids.clips import Solids
from mgjax.lab.worlds.solids.judges.video import make_judge

_APART = 24.0  # of 255 levels, by which a solid stands out of the row that it is in
_DARKER = 0.93  # of the brightness of its row, at most, has a shadow


@dataclasses.dataclass(frozen=True)
class SolidsReferences:
  """Reads the looks of 'this object', its motion and the camera, and where the light comes from."""

  source: Solids  # of training

  attributes: ClassVar[tuple[str, ...]] = ('colour', 'shape', 'material', 'motion', 'camera')
  copied: ClassVar[tuple[str, ...]] = ('light', 'place')

  def asks(self, samples: int) -> list[Asked]:
    source = self._unseen
    scenes = [source.scene(index) for index in range(samples)]
    return [Asked(source.caption(scene).text, scene) for scene in scenes]

  def clips(self, asked: Sequence[Asked]) -> list[Sample]:
    return [self._unseen.show(each.label) for each in asked]

  def ways(self, asked: Sequence[Asked]) -> dict[str, Videos]:
    """The clips of the next one's object, in which an identity is found by chance."""
    bare = self._bare
    scenes = [each.label for each in asked]
    return {
      'another object (chance)': [bare.show(scene)['video'] for scene in scenes[1:] + scenes[:1]]
    }

  def right(self, videos: Videos, asked: Sequence[Asked]) -> dict[str, list[bool]]:
    right: dict[str, list[bool]] = {name: [] for name in self.attributes}
    for reading, (_, scene) in zip(make_judge(self._bare).read(videos), asked, strict=True):
      solid = scene.solids[0]
      seen = reading.solids.get(solid.colour)
      right['colour'].append(seen is not None)
      for name in ('shape', 'material', 'motion'):
        right[name].append(seen is not None and getattr(seen, name) == getattr(solid, name))
      right['camera'].append(reading.camera == scene.camera.move)
    return right

  def poses(self, videos: Videos, asked: Sequence[Asked]) -> Mapping[str, list[float]]:
    """How far to the right of a solid its shadow lies, and where it is itself, of half a frame."""
    del asked
    found = [_light_and_place(np.asarray(video)[0]) for video in videos]
    return {name: [each[place] for each in found] for place, name in enumerate(self.copied)}

  @property
  def _unseen(self) -> Solids:
    return dataclasses.replace(
      self.source, split='in_distribution', extras=('reference',), named=False
    )

  @property
  def _bare(self) -> Solids:
    return dataclasses.replace(self._unseen, extras=())


def _light_and_place(picture: np.ndarray) -> tuple[float, float]:
  """Where the shadow of what stands out of a picture lies, and where that is; NaN if nothing is."""
  values = picture.astype(np.float32)
  behind = np.median(values, axis=1, keepdims=True)  # floor and sky are nearly alike along a row
  grey, usual = values.mean(-1), behind.mean(-1)
  tinted = np.abs((values - behind) - (grey - usual)[..., None]).max(-1) > _APART
  solid = tinted | (grey - usual > _APART)
  shadow = ~solid & (grey < _DARKER * usual)
  across = (np.arange(picture.shape[1]) + 0.5) / picture.shape[1] * 2 - 1
  place = _mean_of(across, solid)
  return _mean_of(across, shadow) - place, place


def _mean_of(across: np.ndarray, where: np.ndarray) -> float:
  columns = where.sum(0)
  return float(across @ columns / columns.sum()) if columns.sum() > 8 else float('nan')
