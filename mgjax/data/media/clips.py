"""What pipelines return: arrays that know how fast they play."""

from collections.abc import Iterator, Sequence
from typing import Any, Self

import numpy as np

_FIELDS = ('frames', 'images', 'audios', 'videos')  # of what pipelines of diffusers return


class Clips(np.ndarray):
  """Videos uint8 (b t h w 3) or (t h w 3), or sounds floats (b s c) or (s c), with their rate.

  It is an array like any other. What is cut out of it or reckoned with it keeps the rate;
  `np.stack` and other functions of several arrays return plain ones.

  Attributes:
    fps: frames a second of videos, one number or one of each along the first axis; None of sounds.
    rate: samples a second of sounds; None of videos.
  """

  fps: float | tuple[float, ...] | None
  rate: int | None

  @classmethod
  def of(cls, array: Any, *, fps: float | Sequence[float] | None = None, rate: int | None = None):
    """Returns an array with its rate; rates that are all the same become one number."""
    clips = np.asarray(array).view(cls)
    if isinstance(fps, Sequence):
      fps = tuple(fps) if len(set(fps)) > 1 else fps[0]
    clips.fps, clips.rate = fps, rate
    return clips

  def __array_finalize__(self, array: Any) -> None:
    self.fps, self.rate = getattr(array, 'fps', None), getattr(array, 'rate', None)

  def __array_wrap__(self, array: Any, context: Any = None, return_scalar: bool = False) -> Any:
    # A mean is a number, not an array of no axes.
    return array[()] if array.ndim == 0 else array.view(type(self))._like(self)

  def _like(self, other: Self) -> Self:
    self.__array_finalize__(other)
    return self

  def __getattr__(self, name: str) -> Any:
    hint = '; it is the array itself: [0] is the first' if name in _FIELDS else ''
    said = f'{type(self).__name__!r} object has no attribute {name!r}{hint}'
    raise AttributeError(said, name=name, obj=self)

  def __iter__(self) -> Iterator[Any]:
    return (self[row] for row in range(len(self)))

  def __getitem__(self, index: Any) -> Any:
    found = super().__getitem__(index)
    if isinstance(found, Clips) and isinstance(self.fps, tuple):
      first = index[0] if isinstance(index, tuple) else index
      found.fps = self.fps[first] if isinstance(first, int | np.integer | slice) else None
    return found


def fps_of(video: Any, count: int, usual: float) -> list[float]:
  """Returns the frames a second of each of `count` videos, `usual` where an array says none."""
  if isinstance(video, list | tuple):
    return [fps_of(each, 1, usual)[0] for each in video]
  found = getattr(video, 'fps', None) or usual
  return list(found) if isinstance(found, tuple) else [found] * count


def formed(video: Clips, output_type: str) -> Any:
  """Returns a video in the form of an `output_type`."""
  if output_type != 'pil':
    return video
  from PIL import Image

  return [Image.fromarray(np.asarray(frame)) for frame in video]


def stacked(made: Sequence[Any]) -> Any:
  """Returns videos in one array, those that are lists of images in a list."""
  if isinstance(made[0], list):
    return list(made)
  return Clips.of(np.stack(made), fps=[each.fps for each in made])
