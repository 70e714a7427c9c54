"""What editing is trained on: pairs, pictures as clips of one frame, and clips to make (§5).

A sample of a pair is {'source_video', 'video', 'caption', 'task'}, where the caption is the
instruction. Text to video is trained beside pairs as an edit of a black clip (Movie Gen §5).
"""

import dataclasses
from collections.abc import Callable, Iterator
from typing import Annotated, Any

import numpy as np

from mgjax.core.settings import Checked, Range
from mgjax.core.typing import Float, Sample, UInt8, Wrapped
from mgjax.models.conditioning.clips.source_video import KEY as SOURCE
from mgjax.models.conditioning.edit_task import KEY as TASK
from mgjax.models.conditioning.temporal_place import KEY as PLACE

Unit = Annotated[float, Range(least=0, most=1)]


@dataclasses.dataclass(frozen=True)
class Motion(Checked):
  """`config.edits.motion`: how far a picture is moved when it is animated. Not in public sources.

  Attributes:
    shift: of the sides, at most, to and fro.
    zoom: closer, at most, as a factor less one.
    turn: degrees, at most.
  """

  shift: Unit = 0.15
  zoom: Annotated[float, Range(least=0, most=3)] = 0.3
  turn: Annotated[float, Range(least=0, most=180)] = 15.0


class WithBlack(Wrapped):
  """Clips as edits of a black clip, which is how text to video is trained beside edits."""

  said = 'from black'

  def change(self, sample: Sample, index: int) -> Sample:
    """Adds the black clip to a sample that has no source video."""
    del index
    return {SOURCE: np.zeros_like(sample['video']), TASK: '', **sample}


class AnyPlace(Wrapped):
  """Pictures that stand anywhere in the table of temporal positions."""

  def __init__(self, source: Any, places: int, seed: int):
    """Wraps pictures."""
    super().__init__(source)
    self.places, self.seed = places, seed
    self.said = f'at any of {places} places, seed {seed}'

  def change(self, sample: Sample, index: int) -> Sample:
    """Adds the place, a function of the index."""
    place = np.random.default_rng((self.seed, index)).integers(self.places)
    return sample | {PLACE: int(place)}


class Animated(Wrapped):
  """Pairs of pictures as pairs of clips: one affine motion moves both pictures of a pair.

  The clip shows the picture through a window that shifts, turns and comes closer at constant speed;
  what lies beyond its edges is its mirror image. The instruction gets a prefix (Movie Gen §5).
  """

  def __init__(self, source: Any, frames: int, motion: Motion, prefix: str, seed: int):
    """Wraps pairs of pictures."""
    super().__init__(source)
    self.frames = frames
    self.motion = motion
    self.prefix = prefix
    self.seed = seed
    self.said = f'animated in {frames} frames by {motion}, seed {seed}, said {prefix!r}'

  def change(self, sample: Sample, index: int) -> Sample:
    """Moves both pictures, as a function of the index."""
    ways = draw_motion(self.motion, self.frames, np.random.default_rng((self.seed, index)))
    moved = {name: animate(sample[name][0], ways) for name in ('video', SOURCE) if name in sample}
    return {**sample, **moved, 'caption': self.prefix + sample['caption']}

  @property
  def every_caption(self) -> Callable[[], Iterator[Sample] | None]:
    """Those of the source behind the prefix; no such attribute where it has none."""
    known = self.source.every_caption

    def captions() -> Iterator[Sample] | None:
      found = known()
      return (
        None
        if found is None
        else (sample | {'caption': self.prefix + sample['caption']} for sample in found)
      )

    return captions


def draw_motion(
  motion: Motion, frames: int, generator: np.random.Generator
) -> Float[np.ndarray, 't 2 3']:
  """Draws the affine maps of a clip, from a place (y, x) in a frame to one in the picture.

  With A_i = R(theta_i) / z_i and a shift d_i, p' = A_i p + d_i in units of the sides, from the
  middle: the turn theta, the zoom z and d grow by the same amount from frame to frame.
  """
  begin, end = generator.uniform(-1, 1, (2, 4))
  way = begin + np.linspace(0, 1, frames)[:, None] * (end - begin)  # t 4
  angle = np.deg2rad(motion.turn) * way[:, 0]
  closer = 1 / (1 + motion.zoom * (way[:, 1] + 1) / 2)
  turned = np.stack([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])  # 2 2 t
  shift = motion.shift * way[:, 2:, None]
  return np.concatenate([np.moveaxis(turned * closer, -1, 0), shift], axis=2)


def animate(
  picture: UInt8[np.ndarray, 'h w 3'], maps: Float[np.ndarray, 't 2 3']
) -> UInt8[np.ndarray, 't h w 3']:
  """Returns the clip that shows a picture through moving windows, see `draw_motion`."""
  from scipy.ndimage import map_coordinates

  height, width = picture.shape[:2]
  side = min(height, width)  # turns do not shear
  place = np.stack(np.mgrid[:height, :width]).reshape(2, -1) + 0.5
  middle = np.array([[height / 2], [width / 2]])
  clip = np.empty((len(maps), height, width, 3), np.uint8)
  for frame, each in zip(clip, maps, strict=True):
    seen = each[:, :2] @ (place - middle) + side * each[:, 2:] + middle - 0.5
    for channel in range(3):
      plane = map_coordinates(
        picture[..., channel].astype(np.float32), seen, order=1, mode='mirror'
      )
      frame[..., channel] = (plane + 0.5).reshape(height, width)
  return clip
