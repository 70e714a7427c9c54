"""Reads digits and textures of enlarged clips, see `EnlargedJudge` of `lab/worlds/judging.py`."""

import dataclasses
import functools
from collections.abc import Mapping, Sequence
from typing import ClassVar

import numpy as np

from mgjax.core.typing import Float
from mgjax.lab.worlds.digits.clips import Digits
from mgjax.lab.worlds.digits.judges.digit import DigitJudge, train_judge
from mgjax.lab.worlds.digits.judges.texture import texture_phase
from mgjax.lab.worlds.digits.judges.video import looks_of
from mgjax.lab.worlds.digits.scene import TEXTURES
from mgjax.lab.worlds.judging import Videos

_LEARNT = 1000  # clips that the judge learns from


@dataclasses.dataclass(frozen=True)
class DigitsEnlarged:
  """Reads digits, textures, and how a texture keeps its place on a digit from frame to frame."""

  source: Digits

  columns: ClassVar[Mapping[str, str]] = {'digit': 'digit', 'texture': 'texture', 'phase': 'phase'}

  def kinds(self, indices: Sequence[int]) -> list[str]:
    return ['textured' if texture else 'plain' for texture in self._textures(indices)]

  def read(self, videos: Videos, indices: Sequence[int]) -> dict[str, Float[np.ndarray, 'b']]:
    numbers = [int(self.source.scene(index).number) for index in indices]
    textures = self._textures(indices)
    readings = [self._judge.read(video) for video in videos]
    named = list(zip(readings, textures, strict=True))
    scores = {
      'digit': [reading.digit == digit for reading, digit in zip(readings, numbers, strict=True)],
      'texture': [reading.texture == texture if texture else np.nan for reading, texture in named],
    }
    if self.source.frames > 1:
      pairs = zip(videos, textures, strict=True)
      scores['phase'] = [texture_phase(video) if texture else np.nan for video, texture in pairs]
    return {name: np.array(values, float) for name, values in scores.items()}

  @functools.cached_property  # several ways to enlarge the same clips are judged
  def _judge(self) -> DigitJudge:
    looks = looks_of(self.source, ('textures',))
    return train_judge(side=min(self.source.size), clips=_LEARNT, **looks)

  def _textures(self, indices: Sequence[int]) -> list[str]:
    return [TEXTURES[self.source.scene(index).texture] for index in indices]
