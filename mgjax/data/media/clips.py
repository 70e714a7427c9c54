"""What pipelines return: arrays that know how fast they play."""

from collections.abc import Iterator, Sequence
from typing import Annotated, Any, Self

import numpy as np

from mgjax.core.errors import ConfigError
from mgjax.core.settings import Range, checked

Fps = Annotated[float, Range(least=0.01, most=1000)]
SampleRate = Annotated[int, Range(least=1, most=10_000_000)]
_FIELDS = ('frames', 'images', 'audios', 'videos')  # of what pipelines of diffusers return


class Clips(np.ndarray):
  """Videos uint8 (b t h w 3) or (t h w 3), or audio, floats (b s c) or (s c), with their rate.

  It is an array like any other. What is cut out of it or calculated with it keeps the rate. Rates
  that differ are kept by an index along the first axis and by arithmetic alone, since elsewhere
  nobody could say whose they are; `np.stack` and its like return plain arrays.

  Attributes:
    fps: frames a second of videos, one number or one of each along the first axis; None of audio.
    rate: samples a second of audio; None of videos.
  """

  fps: float | tuple[float, ...] | None
  rate: int | None

  @classmethod
  def of(cls, array: Any, *, fps: Any = None, rate: Any = None) -> Self:
    """Returns an array with its rate; equal rates become one number.
    Raises ConfigError for an invalid rate, or a wrong number of rates.
    """
    clips = np.asarray(array).view(cls)
    clips.rate = checked(SampleRate | None, rate, 'rate')
    values = np.atleast_1d(fps).tolist()
    rates = [checked(Fps | None, value, 'fps') for value in values]
    if np.ndim(fps) and len(rates) != len(clips):
      raise ConfigError(f'fps: {len(rates)} rates for {len(clips)} videos; give one, or one each')
    clips.fps = tuple(rates) if len(set(rates)) > 1 else rates[0]
    return clips

  def __array_finalize__(self, array: object) -> None:
    fps = getattr(array, 'fps', None)
    self.fps, self.rate = None if isinstance(fps, tuple) else fps, getattr(array, 'rate', None)

  def __array_wrap__(
    self, array: np.ndarray, context: tuple | None = None, return_scalar: bool = False
  ) -> Any:
    if array.ndim == 0:
      return array[()]  # a mean is a number, not an array of no axes
    result = array.view(type(self))
    result.__array_finalize__(self)
    if context is not None and array.shape[:1] == self.shape[:1]:  # arithmetic, place by place
      rates = {operand.fps for operand in context[1] if isinstance(operand, Clips)}
      result.fps = self.fps if len(rates) == 1 else None
    return result

  def __reduce__(self) -> tuple:
    make, arguments, state = super().__reduce__()
    return make, arguments, (*state, self.fps, self.rate)

  def __setstate__(self, state: tuple) -> None:
    *array, self.fps, self.rate = state
    super().__setstate__(tuple(array))

  def __getattr__(self, name: str) -> Any:
    hint = '; it is the array itself: [0] is the first' if name in _FIELDS else ''
    message = f'{type(self).__name__!r} object has no attribute {name!r}{hint}'
    raise AttributeError(message, name=name, obj=self)

  def __iter__(self) -> Iterator[Any]:
    return (self[row] for row in range(len(self)))

  def __getitem__(self, index: Any) -> Any:
    result = super().__getitem__(index)
    if isinstance(result, Clips) and isinstance(self.fps, tuple):
      first, *_ = index if isinstance(index, tuple) else (index,)
      if first is Ellipsis and (not isinstance(index, tuple) or len(index) < self.ndim):
        first = slice(None)
      if isinstance(first, int | np.integer | slice | list) or np.ndim(first) == 1:
        rates = np.array(self.fps)[first].tolist()
        result.fps = tuple(rates) if isinstance(rates, list) else rates
    return result


def fps_of(video: object, count: int, usual: float) -> list[float]:
  """Returns the frames a second of each of `count` videos, `usual` where an array says none."""
  if isinstance(video, list | tuple):
    if duration := getattr(video[0], 'info', {}).get('duration'):  # images of PIL, of one video
      return [1000 / duration] * count
    if len(video) == count:
      return [fps_of(clip, 1, usual)[0] for clip in video]
  rates = getattr(video, 'fps', None) or usual
  return list(rates) if isinstance(rates, tuple) else [rates] * count


def formed(video: Clips, output_type: str) -> Clips | list:
  """Returns a video in the form of an `output_type`; images of PIL know for how long they show."""
  if output_type != 'pil':
    return video
  from PIL import Image

  images = [Image.fromarray(np.asarray(frame)) for frame in video]
  for image in images:
    image.info['duration'] = 1000 / video.fps
  return images


def stacked(videos: Sequence[Any]) -> Clips | list:
  """Returns videos in one array, those that are lists of images in a list."""
  if isinstance(videos[0], list):
    return list(videos)
  return Clips.of(np.stack(videos), fps=[video.fps for video in videos])
