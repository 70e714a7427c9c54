"""Random-access sources of windows of video files: sample i is a function of i alone.

`ingest/entries.py` says how a folder or list names clips, `clip_index.py` indexes them,
`buckets.py` assigns them to buckets, and `replacement.py` replaces windows that cannot be read.
"""

import abc
import hashlib
import operator
import pathlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, SupportsIndex

import numpy as np

from mgjax.core.configuration.keys import JSON
from mgjax.core.errors import DataError
from mgjax.core.typing import Sample
from mgjax.data.buckets import Shape, check_covers
from mgjax.data.clip_index import ClipIndex, IndexedClip
from mgjax.data.ingest.entries import SOURCE
from mgjax.data.media import audio, video


class ClipWindows(abc.ABC):
  """Windows of clips as a random-access source; what a sample holds is up to `read`.

  A clip of D seconds gives max(1, floor(D / L)) windows of L seconds that do not overlap, so a long
  clip gives several samples and a second of film counts alike wherever it is from. Each window lies
  in its own equal part of the clip, at an offset that the hash of the index chooses. A clip with a
  `start` gives one window, there. A window that cannot be read raises a DataError.
  """

  def __init__(
    self, clips: ClipIndex, seconds: np.ndarray | float, most: np.ndarray | float = np.inf
  ):
    """Cuts clips, at least one, into windows of `seconds`, of each clip at most `most`."""
    if not len(clips):
      raise DataError('a source of clips needs at least one clip')
    self._clips = clips
    self._lasting = np.asarray(clips.columns['seconds'], np.float64)
    self._lengths = np.broadcast_to(np.asarray(seconds, np.float64), self._lasting.shape)
    parts = np.floor(self._lasting / self._lengths + 1e-6)
    parts = np.clip(parts, 1, np.maximum(most, 1)).astype(np.int64)
    self._parts = np.where(np.isnan(clips.columns['start']), parts, 1)
    self._ends = np.cumsum(self._parts)

  @abc.abstractmethod
  def read(self, clip: IndexedClip, start: float, number: int, index: int) -> dict[str, Any]:
    """Reads the window of a clip, `number` of the index, that begins at `start` seconds."""

  def length(self, number: int, index: int) -> float:
    """The seconds that window `index`, of clip `number`, takes of its clip."""
    del index
    return float(self._lengths[number])

  def spread(self, count: int) -> list[int]:
    """Returns the indices of at most `count` windows, about as many of each clip, evenly spread."""
    clips = evenly(len(self._parts), count)
    parts = self._parts[clips]
    most = next(n for n in range(count, 0, -1) if n == 1 or np.minimum(parts, n).sum() <= count)
    begins = (self._ends - self._parts)[clips].tolist()
    return [
      begin + window
      for begin, windows in zip(begins, parts.tolist(), strict=True)
      for window in evenly(windows, most)
    ]

  def caption(self, index: int) -> str:
    """Returns that of the clip, which is not opened for it."""
    return self._clips[int(np.searchsorted(self._ends, index, side='right'))].caption

  @property
  def fingerprint(self) -> str:
    return self._clips.fingerprint

  def every_caption(self) -> Iterator[Sample] | None:
    """Yields {'caption'} of all clips; None where one would have to read them."""
    captions = self._clips.every_caption()
    return None if captions is None else ({'caption': caption} for caption in captions)

  def __len__(self) -> int:
    return int(self._ends[-1])

  def __getitem__(self, index: SupportsIndex) -> Sample:
    index = operator.index(index)
    if not 0 <= index < len(self):
      raise IndexError(f'sample {index} of a source of {len(self)}')
    number = int(np.searchsorted(self._ends, index, side='right'))
    clip = self._clips[number]
    sample = self.read(clip, self._start(clip, number, index), number, index)
    return {**clip.extra, **sample, 'caption': clip.caption, 'source': clip.name}

  def _start(self, clip: IndexedClip, number: int, index: int) -> float:
    if clip.start is not None:
      return clip.start
    window = index - int(self._ends[number] - self._parts[number])
    parts = self._parts[number]
    part = float(self._lasting[number] / parts)
    length = self.length(number, index)
    start = window * part + chance(index, 0) * max(0.0, part - length)
    return min(start, max(0.0, float(self._lasting[number]) - length))


class VideoClips(ClipWindows):
  """Windows of videos: {'video', 'caption', 'source'} and, of more than one frame, 'fps'.

  A clip gives no more windows than it has frames. A window lasts `frames` / fps seconds at the rate
  that `Shape.rates` gives the clip; single frames are taken one a second, since neighbours are near
  copies. With `intervals` it takes every frame, every second, ... of those at that rate: one of
  them, by the hash of the index again, of those that the clip is long enough for. Autoencoders see
  fast motion so (HunyuanVideo draws from 1 to 8).
  """

  def __init__(
    self,
    clips: ClipIndex,
    shape: Shape,
    *,
    intervals: Sequence[int] = (1,),
    limits: video.Limits = video.LIMITS,
  ):
    if not intervals or min(intervals) < 1:
      raise DataError(f'intervals are {tuple(intervals)}; expected whole numbers of frames from 1')
    self._left = np.maximum(clips.columns['seconds'] - clips.begin, 0)
    frames = np.rint(clips.columns['fps'] * clips.columns['seconds'])
    super().__init__(clips, shape.windows(self._left), np.where(frames > 0, frames, np.inf))
    self._rates = shape.rates(self._left)
    self._shape = shape
    self._limits = limits
    self._intervals = np.sort(np.array(intervals if shape.frames > 1 else (1,)))

  def length(self, number: int, index: int) -> float:
    """The seconds that the frames take, at the interval that is drawn for them."""
    return self._interval(number, index) * super().length(number, index)

  def every_caption(self) -> Iterator[Sample] | None:
    """Yields {'caption'} of all clips and, of more than one frame, the 'fps' of their windows."""
    if (captions := super().every_caption()) is None or self._shape.frames == 1:
      return captions
    return (
      caption | {'fps': float(rate) / interval}
      for caption, rate in zip(captions, self._rates, strict=True)
      for interval in self._intervals
    )

  def read(self, clip: IndexedClip, start: float, number: int, index: int) -> dict[str, Any]:
    fps = float(self._rates[number]) / self._interval(number, index)
    files = {'video': clip.file}
    if SOURCE in clip.extra:  # of a pair both have the same window
      files[SOURCE] = clip.extra[SOURCE]
    shape = self._shape
    window = {'frames': shape.frames, 'size': shape.size, 'fps': fps, 'start': start}
    read = {
      name: video.read_clip(file, limits=self._limits, **window) for name, file in files.items()
    }
    return read | ({'fps': fps} if shape.frames > 1 else {})

  def _interval(self, number: int, index: int) -> int:
    window = float(self._lengths[number])
    fitting = self._intervals[self._intervals * window <= self._left[number]]
    fitting = fitting if len(fitting) else self._intervals[:1]
    return int(fitting[int(chance(index, -1) * len(fitting))])


class InMemory:
  """At most `count` windows, about as many of each clip, each read once and then kept."""

  def __init__(self, source: ClipWindows, count: int):
    self._source = source
    self._indices = source.spread(count)
    self._kept: dict[int, JSON] = {}

  @property
  def fingerprint(self) -> str:
    return f'{self._source.fingerprint} in {len(self)} windows'

  def spread(self, count: int) -> list[int]:
    return evenly(len(self), count)

  def caption(self, index: int) -> str:
    return self._source.caption(self._indices[index])

  def __len__(self) -> int:
    return len(self._indices)

  def __getitem__(self, index: SupportsIndex) -> Sample:
    index = operator.index(index)
    if index not in self._kept:
      self._kept[index] = self._source[self._indices[index]]
    return dict(self._kept[index])


def probe_video(
  file: pathlib.Path,
  shapes: Mapping[str, Shape],
  *,
  sounding: bool = False,
  limits: video.Limits = video.LIMITS,
) -> dict[str, float | bool]:
  """Returns the fields of an `IndexedClip`; with `sounding` its audio decides the length.
  Raises DataError if it cannot be used, for example if that audio is missing.
  """
  info = video.probe(file, limits)
  check_covers(info.height, info.width, shapes)
  seconds = info.seconds
  if sounding:
    seconds = min(seconds, audio.probe_audio(file, limits).seconds)
  size = {'height': info.height, 'width': info.width, 'interlaced': info.interlaced}
  return {'seconds': seconds, 'fps': info.fps, 'sounding': info.has_audio, **size}


def evenly(length: int, count: int) -> list[int]:
  """Returns `count` numbers below `length`, or all of them, evenly spread."""
  return np.unique(np.linspace(0, length - 1, count).round().astype(int)).tolist()


def chance(index: int, attempt: int) -> float:
  """A hash of the arguments as a number in [0, 1), the same on every machine."""
  digest = hashlib.blake2b(f'{index} {attempt}'.encode(), digest_size=6).digest()
  return int.from_bytes(digest, 'big') / 2**48
