"""Decodes a video once, for all scorers (Movie Gen §3.2.1).

A frame of a file is converted only to what is requested. That is its brightness as it was stored,
its colours at full size, or those of a smaller picture, which swscale makes without the large one.
Each size is made once.
"""

import dataclasses
import functools
from collections.abc import Iterator
from typing import Any

import av
import numpy as np

from mgjax.core.errors import DataError
from mgjax.core.typing import UInt8
from mgjax.data.media.containers import LIMITS, File, Limits, opened, video_stream
from mgjax.data.media.frame_times import frames_from
from mgjax.data.media.video import make_resize, orientation, pixel_aspect, side_data, upright_size

_PLANAR = ('yuv420p', 'yuv422p', 'yuv444p', 'yuvj420p', 'yuvj422p', 'yuvj444p', 'nv12', 'gray')


@dataclasses.dataclass(frozen=True, eq=False)
class Frame:
  """One frame of a video, upright and with square pixels, RGB."""

  number: int  # 0 of the first frame
  start: float  # seconds from the first frame of the video
  end: float  # when the next one is shown
  pixels: UInt8[np.ndarray, 'h w 3']
  luma: UInt8[np.ndarray, 'h w']
  vectors: float | None = None

  @property
  def size(self) -> tuple[int, int]:
    """(height, width) in pixels, known without converting any."""
    height, width = self.luma.shape
    return height, width

  def shrunk(self, side: int | None) -> 'Frame':
    """The frame with `side` as its shorter side; itself if it is no larger, or of side None."""
    size = shrunk_size(self.size, side)
    return self if size == self.size else self._at(size)

  def _at(self, size: tuple[int, int]) -> 'Frame':
    cache = self.__dict__.setdefault('_made', {})
    if size not in cache:
      cache[size] = Frame(
        self.number, self.start, self.end, *self._converted(size), vectors=self.vectors
      )
    return cache[size]

  def _converted(self, size: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    original = av.VideoFrame.from_ndarray(np.ascontiguousarray(self.pixels), 'rgb24')
    resized = original.reformat(width=size[1], height=size[0], format='rgb24', interpolation='AREA')
    pixels = resized.to_ndarray()
    return pixels, resized.reformat(format='gray').to_ndarray()


class _Decoded(Frame):
  """A frame that converts what a decoder gave when it is asked."""

  def __init__(self, number: int, start: float, end: float, source: Any, resizes: '_Resizes'):
    values = {'number': number, 'start': start, 'end': end, 'vectors': _vectors(source)}
    self.__dict__.update(values, _source=source, _resizes=resizes)

  @property
  def size(self) -> tuple[int, int]:
    return self._resizes.size

  @functools.cached_property
  def pixels(self) -> UInt8[np.ndarray, 'h w 3']:
    return self._resizes.at(self.size)(self._source)

  @functools.cached_property
  def luma(self) -> UInt8[np.ndarray, 'h w']:
    source, (height, width) = self._source, self.size
    turns, rows = orientation(source)
    if source.format.name not in _PLANAR:
      source = source.reformat(format='gray')
    if (source.height, source.width) != ((width, height) if turns % 2 else self.size):
      shape = (height, width) if turns % 2 else (width, height)  # (width, height), before turning
      plane = np.ascontiguousarray(_brightness(source))
      source = av.VideoFrame.from_ndarray(plane, 'gray').reformat(*shape)
    return np.ascontiguousarray(np.rot90(_brightness(source)[::rows], turns))

  def _converted(self, size: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    pixels = self._resizes.at(size)(self._source)
    frame = av.VideoFrame.from_ndarray(pixels, 'rgb24')
    return pixels, frame.reformat(format='gray').to_ndarray()


class _Resizes:
  """What brings the frames of one file to sizes, each made when it is first asked for."""

  def __init__(self, path: File, aspect: float, size: tuple[int, int], limits: Limits):
    self._made = {}
    self._make = functools.partial(make_resize, path, aspect, limits=limits)
    self.size = size

  def at(self, size: tuple[int, int]):
    if size not in self._made:
      self._made[size] = self._make(size)
    return self._made[size]


def stream(path: File, limits: Limits = LIMITS) -> Iterator[Frame]:
  """Yields the frames of a video, each decoded once; no call may last beyond `limits.until`.

  A frame can be converted while the next one is not asked for, and as long as it is held.
  Raises DataError if the file is missing, not a video, damaged, cut off or beyond `limits`.
  """
  with opened(path, limits, 'a video', video_stream) as (container, pictures, _):
    context = pictures.codec_context
    context.options = {**context.options, 'flags2': '+export_mvs'}
    resizes = None
    for number, (frame, start, end) in enumerate(frames_from(container, pictures, 0.0)):
      limits.check_time(path, limits.until)
      if number >= limits.frames:
        raise DataError(f'{path}: has over {limits.frames} frames; cut it into clips first')
      if resizes is None:
        resizes = _Resizes(
          path, pixel_aspect(pictures), upright_size(path, frame, pictures), limits
        )
      yield _Decoded(number, float(start), float(end), frame, resizes)
  if resizes is None:
    raise DataError(f'{path}: holds no frame that can be decoded')


def shrunk_size(size: tuple[int, int], side: int | None) -> tuple[int, int]:
  """(height, width) with `side` as the shorter one, both even; as they are where that is larger."""
  if not side or side >= min(size):
    return size
  scale = side / min(size)
  height, width = (2 * max(1, round(length * scale / 2)) for length in size)
  return height, width


def _brightness(frame: av.VideoFrame) -> UInt8[np.ndarray, 'h w']:
  plane = frame.planes[0]
  rows = np.frombuffer(plane, np.uint8).reshape(-1, plane.line_size)
  return rows[: frame.height, : frame.width]


def _vectors(frame: av.VideoFrame) -> float | None:
  """Returns the mean length of a frame's motion vectors, weighted by the area that each moves."""
  data = side_data(frame, 'MOTION_VECTORS')
  if data is None or not len(data):
    return None
  vectors = data.to_ndarray()
  lengths = np.hypot(vectors['motion_x'], vectors['motion_y']) / vectors['motion_scale']
  areas = vectors['w'].astype(np.float64) * vectors['h']
  return float((lengths * areas).sum() / areas.sum())
