"""Anyone's own clips: a folder or a list of video files with captions, as a source for Grain.

How a folder or a list names them stands in `clip_files.py`.

What cannot be used is skipped, with its reason, and the reasons are kept: one bad file in a million
neither stops a run nor passes unseen.
"""

import abc
import concurrent.futures
import dataclasses
import hashlib
import json
import logging
import math
import operator
import os
import pathlib
import threading
from collections.abc import Callable, Sequence
from typing import Any, SupportsIndex

import numpy as np

from mgjax.core.errors import DataError
from mgjax.core.files import write_bytes
from mgjax.data import sound_io, video_io
from mgjax.data.clip_files import VIDEO, Entry, Medium, Rejected, commonest, list_entries

_IN_A_ROW = 32  # clips that fail one after another: more look like a lost disk than like bad files
_LOCK = threading.Lock()  # of the counts of failures; outside the sources, which are pickled
_log = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class Clip:
  """A video file that was found usable; with a `start`, only what follows it counts."""

  path: str
  caption: str
  seconds: float
  start: float | None = None


def find_clips(
  path: str | os.PathLike[str],
  *,
  frames: int,
  fps: float,
  size: tuple[int, int],
  limits: video_io.Limits = video_io.LIMITS,
  report: str | os.PathLike[str] | None = None,
  sounding: bool = False,
) -> list[Clip]:
  """Finds the clips in a folder or manifest that can give `frames` frames at `fps` and `size`.

  Args:
    path: a folder, a .csv or a .jsonl.
    frames: frames of one sample; 1 takes single frames and still pictures too.
    fps: frames per second of a sample.
    size: (height, width) of a sample.
    limits: what one file may cost.
    report: see `find`.
    sounding: whether to take only those with sound, as far as it goes.

  Raises:
    DataError: as `find`.
  """

  def seconds(file: pathlib.Path) -> float:
    info = video_io.probe(file, limits)
    video_io.cover_size(info.height, info.width, size, limits)
    return min(info.seconds, sound_io.probe_sound(file, limits).seconds if sounding else math.inf)

  def lack(entry: Entry, seconds: float) -> str | None:
    last = (entry.start or 0.0) + (frames - 1) / fps
    if last + 2 * video_io.TOLERANCE < seconds:
      return None
    since = f' from {entry.start:.2f} s on' if entry.start else ''
    return f'{frames} frames at {fps:g} per second{since} need more than {last:.2f} s'

  wanted = f'videos of at least {frames / fps:.2f} s ({frames} frames at {fps:g} per second)'
  return find(path, VIDEO, seconds, lack, wanted, report)


def find(
  path: str | os.PathLike[str],
  medium: Medium,
  seconds: Callable[[pathlib.Path], float],
  lack: Callable[[Entry, float], str | None],
  wanted: str,
  report: str | os.PathLike[str] | None,
) -> list[Clip]:
  """Finds the usable files of a folder or manifest, and reports the others aloud.

  Args:
    path: a folder, a .csv or a .jsonl.
    medium: of the files.
    seconds: how long a file is; a DataError says why it cannot be used.
    lack: says what an entry needs that its seconds do not give, or None.
    wanted: what to give if there is nothing usable.
    report: where to write the rejected entries, one JSON line {"entry", "reason"} each.

  Raises:
    DataError: there is no such path, or nothing usable in it; says how many entries were rejected
      and the commonest reasons.
  """
  path = pathlib.Path(path)
  entries = list_entries(path, report, medium)

  def describe(file: pathlib.Path) -> float | DataError:
    try:
      return seconds(file)
    except DataError as error:
      return error

  files = list(dict.fromkeys(entry.path for entry in entries if isinstance(entry, Entry)))
  with concurrent.futures.ThreadPoolExecutor(min(16, 4 * (os.cpu_count() or 1))) as pool:
    lengths = dict(zip(files, pool.map(describe, files), strict=True))
  checked = [
    entry if isinstance(entry, Rejected) else _checked(entry, lengths[entry.path], lack)
    for entry in entries
  ]
  clips = [entry for entry in checked if isinstance(entry, Clip)]
  rejected = [entry for entry in checked if isinstance(entry, Rejected)]
  reasons = commonest(rejected)
  if report is not None:
    lines = [json.dumps({'entry': entry.name, 'reason': entry.reason}) for entry in rejected]
    write_bytes(report, ''.join(line + '\n' for line in lines).encode())
    reasons += f'; all reasons are in {report}' if rejected else ''
  if not clips:
    raise DataError(
      f'no usable clip in {path}: {len(rejected)} rejected{reasons}; give {wanted} with '
      f'{medium.wanted}'
    )
  if rejected:
    _log.warning('%s: %d clips, %d rejected%s', path, len(clips), len(rejected), reasons)
  else:
    _log.info('%s: %d clips, none rejected', path, len(clips))
  return clips


class Windows(abc.ABC):
  """Windows of clips as a random-access source; what a sample holds is up to `read`.

  A clip of D seconds gives max(1, floor(D / L)) windows of L seconds that do not overlap, so a long
  clip gives several samples and a second of film counts alike wherever it is from. Each window lies
  in its own equal part of the clip, at an offset that the hash of the index chooses: a sample is a
  function of its index alone. A clip with a `start` gives one window, there.

  A window that cannot be read after all is replaced by one of the next clip of the list that can,
  again a function of the index alone; `failures` counts them, in this process, and the log names
  each bad file once.

  Raises (from `source[i]`):
    DataError: no clip in a long row of them could be read.
  """

  def __init__(self, clips: Sequence[Clip], seconds: float):
    if not clips:
      raise DataError('a source of clips needs at least one clip')
    self.failures = 0
    self._bad_files: set[str] = set()
    self._clips = tuple(clips)
    self._window = seconds
    self._ends = np.cumsum([self._windows(clip) for clip in self._clips])

  @abc.abstractmethod
  def read(self, clip: Clip, start: float, stride: int) -> dict[str, Any]:
    """Reads the window of a clip that begins at `start` seconds."""

  def stride(self, clip: Clip, index: int) -> tuple[int, float]:
    """How much faster than usual window `index` passes, and the seconds that it takes of a clip."""
    del clip, index
    return 1, self._window

  def __len__(self) -> int:
    return int(self._ends[-1])

  def __getitem__(self, index: SupportsIndex) -> dict[str, Any]:
    index = operator.index(index)
    if not 0 <= index < len(self):
      raise IndexError(f'sample {index} of a source of {len(self)}')
    number = int(np.searchsorted(self._ends, index, side='right'))
    clip = self._clips[number]
    window = index - int(self._ends[number]) + self._windows(clip)
    chance = _chance(index, 0)
    tries = min(len(self._clips), _IN_A_ROW)
    for attempt in range(1, tries + 1):
      try:
        stride, length = self.stride(clip, index)
        return self.read(clip, self._start(clip, window, chance, length), stride)
      except DataError as error:
        self._count(clip, error)
        reason = error
      clip = self._clips[(number + attempt) % len(self._clips)]
      chance = _chance(index, attempt)
      window = int(chance * self._windows(clip))
    raise DataError(
      f'sample {index}: {tries} clips in a row could not be read, the last because {reason}; '
      'is their disk still there?'
    )

  def _windows(self, clip: Clip) -> int:
    if clip.start is not None:
      return 1
    return max(1, math.floor(clip.seconds / self._window + 1e-6))

  def _start(self, clip: Clip, window: int, chance: float, length: float) -> float:
    if clip.start is not None:
      return clip.start
    part = clip.seconds / self._windows(clip)
    start = window * part + chance * max(0.0, part - length)
    return min(start, max(0.0, clip.seconds - length))

  def _count(self, clip: Clip, error: DataError) -> None:
    with _LOCK:
      self.failures += 1
      known = clip.path in self._bad_files
      self._bad_files.add(clip.path)
    if not known:
      _log.warning('replaced a sample, since %s', error)


class Clips(Windows):
  """Windows of videos: `source[i]` is {'video', 'caption'}.

  A window lasts frames / fps seconds; single frames (frames = 1) are taken one a second, since
  neighbours are near copies. With `intervals` it takes every frame, every second, ... of those at
  `fps`: one of them, by the hash of the index again, of those that the clip is long enough for.
  Autoencoders see fast motion so (HunyuanVideo draws from 1 to 8).
  """

  def __init__(
    self,
    clips: Sequence[Clip],
    *,
    frames: int,
    fps: float,
    size: tuple[int, int],
    intervals: Sequence[int] = (1,),
    limits: video_io.Limits = video_io.LIMITS,
  ):
    if not intervals or min(intervals) < 1:
      raise DataError(f'intervals are {tuple(intervals)}; expected whole numbers of frames from 1')
    super().__init__(clips, frames / fps if frames > 1 else max(1.0, 1 / fps))
    self._frames, self._fps, self._size, self._limits = frames, fps, size, limits
    self._intervals = tuple(sorted(intervals)) if frames > 1 else (1,)

  def stride(self, clip: Clip, index: int) -> tuple[int, float]:
    """The interval between frames, and how long so many last."""
    left = clip.seconds - (clip.start or 0.0)
    fitting = [i for i in self._intervals if self._frames * i / self._fps <= left]
    fitting = fitting or self._intervals[:1]
    interval = fitting[int(_chance(index, -1) * len(fitting))]
    return interval, self._frames * interval / self._fps

  def read(self, clip: Clip, start: float, stride: int) -> dict[str, Any]:
    """Reads the frames of a window."""
    video = video_io.read_clip(
      clip.path,
      frames=self._frames,
      size=self._size,
      fps=self._fps / stride,
      start=start,
      limits=self._limits,
    )
    return {'video': video, 'caption': clip.caption}


def _chance(index: int, attempt: int) -> float:
  """A number in [0, 1) that only its arguments decide, the same on every machine."""
  digest = hashlib.blake2b(f'{index} {attempt}'.encode(), digest_size=6).digest()
  return int.from_bytes(digest, 'big') / 2**48


def _checked(
  entry: Entry,
  seconds: float | DataError,
  lack: Callable[[Entry, float], str | None],
) -> Clip | Rejected:
  if isinstance(seconds, DataError):
    return Rejected(entry.name, str(seconds).removeprefix(f'{entry.path}: '))
  needed = lack(entry, seconds)
  if needed is not None:
    return Rejected(entry.name, f'is too short: it lasts {seconds:.2f} s, {needed}')
  return Clip(str(entry.path), entry.caption, seconds, entry.start)
