"""Anyone's own clips: a folder or a list of video files with captions, as a source for Grain.

How a folder or a list names them stands in `clip_files.py`.

What cannot be used is skipped, with its reason, and the reasons are kept: one bad file in a million
neither stops a run nor passes unseen.
"""

import collections
import concurrent.futures
import dataclasses
import hashlib
import json
import logging
import math
import operator
import os
import pathlib
import re
import threading
from collections.abc import Sequence
from typing import Any, SupportsIndex

import numpy as np

from mgjax.core.errors import DataError
from mgjax.core.files import write_bytes
from mgjax.data import video_io
from mgjax.data.clip_files import Entry, Rejected, list_entries

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
) -> list[Clip]:
  """Finds the clips in a folder or manifest that can give `frames` frames at `fps` and `size`.

  Args:
    path: a folder, a .csv or a .jsonl.
    frames: frames of one sample; 1 takes single frames and still pictures too.
    fps: frames per second of a sample.
    size: (height, width) of a sample.
    limits: what one file may cost.
    report: where to write the rejected entries, one JSON line {"entry", "reason"} each.

  Raises:
    DataError: there is no such path, or nothing usable in it; says how many entries were rejected
      and the commonest reasons.
  """
  path = pathlib.Path(path)
  entries = list_entries(path, report)

  def describe(file: pathlib.Path) -> video_io.ClipInfo | DataError:
    try:
      info = video_io.probe(file, limits)
      video_io.cover_size(info.height, info.width, size, limits)
      return info
    except DataError as error:
      return error

  files = list(dict.fromkeys(entry.path for entry in entries if isinstance(entry, Entry)))
  with concurrent.futures.ThreadPoolExecutor(min(16, 4 * (os.cpu_count() or 1))) as pool:
    infos = dict(zip(files, pool.map(describe, files), strict=True))
  checked = [
    entry if isinstance(entry, Rejected) else _checked(entry, infos[entry.path], frames, fps)
    for entry in entries
  ]
  clips = [entry for entry in checked if isinstance(entry, Clip)]
  rejected = [entry for entry in checked if isinstance(entry, Rejected)]
  reasons = _commonest(rejected)
  if report is not None:
    lines = [json.dumps({'entry': entry.name, 'reason': entry.reason}) for entry in rejected]
    write_bytes(report, ''.join(line + '\n' for line in lines).encode())
    reasons += f'; all reasons are in {report}' if rejected else ''
  if not clips:
    raise DataError(
      f'no usable clip in {path}: {len(rejected)} rejected{reasons}; give '
      f'videos of at least {frames / fps:.2f} s ({frames} frames at {fps:g} per second) with '
      'captions (clip.mp4, clip.txt), or a manifest with the columns video and caption'
    )
  if rejected:
    _log.warning('%s: %d clips, %d rejected%s', path, len(clips), len(rejected), reasons)
  else:
    _log.info('%s: %d clips, none rejected', path, len(clips))
  return clips


class Clips:
  """Windows of clips as a random-access source: `source[i]` is {'video', 'caption'}.

  A clip of D seconds gives max(1, floor(D / L)) windows of L = frames / fps seconds that do not
  overlap, so a long clip gives several samples and a second of film counts alike wherever it is
  from; single frames (frames = 1) are taken one a second, since neighbours are near copies. Each
  window lies in its own equal part of the clip, at an offset that the hash of the index chooses: a
  sample is a function of its index alone. A clip with a `start` gives one window, there.

  With `intervals` a window takes every frame, every second, ... of those at `fps`: one of them, by
  the hash of the index again, of those that the clip is long enough for. Autoencoders see fast
  motion so (HunyuanVideo draws from 1 to 8).

  A window that cannot be read after all is replaced by one of the next clip of the list that can,
  again a function of the index alone; `failures` counts them, in this process, and the log names
  each bad file once.

  Raises (from `source[i]`):
    DataError: no clip in a long row of them could be read.
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
    if not clips:
      raise DataError('a source of clips needs at least one clip')
    if not intervals or min(intervals) < 1:
      raise DataError(f'intervals are {tuple(intervals)}; expected whole numbers of frames from 1')
    self.failures = 0
    self._bad_files: set[str] = set()
    self._clips = tuple(clips)
    self._frames, self._fps, self._size, self._limits = frames, fps, size, limits
    self._intervals = tuple(sorted(intervals)) if frames > 1 else (1,)
    self._window = frames / fps if frames > 1 else max(1.0, 1 / fps)  # seconds
    self._ends = np.cumsum([self._windows(clip) for clip in self._clips])

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
        return self._read(clip, window, chance, self._interval(clip, index))
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

  def _interval(self, clip: Clip, index: int) -> int:
    left = clip.seconds - (clip.start or 0.0)
    fitting = [i for i in self._intervals if self._frames * i / self._fps <= left]
    fitting = fitting or self._intervals[:1]
    return fitting[int(_chance(index, -1) * len(fitting))]

  def _windows(self, clip: Clip) -> int:
    if clip.start is not None:
      return 1
    return max(1, math.floor(clip.seconds / self._window + 1e-6))

  def _read(self, clip: Clip, window: int, chance: float, interval: int) -> dict[str, Any]:
    part, length = clip.seconds / self._windows(clip), self._frames * interval / self._fps
    start = window * part + chance * max(0.0, part - length)
    start = min(start, max(0.0, clip.seconds - length))
    video = video_io.read_clip(
      clip.path,
      frames=self._frames,
      size=self._size,
      fps=self._fps / interval,
      start=start if clip.start is None else clip.start,
      limits=self._limits,
    )
    return {'video': video, 'caption': clip.caption}

  def _count(self, clip: Clip, error: DataError) -> None:
    with _LOCK:
      self.failures += 1
      known = clip.path in self._bad_files
      self._bad_files.add(clip.path)
    if not known:
      _log.warning('replaced a sample, since %s', error)


def _chance(index: int, attempt: int) -> float:
  """A number in [0, 1) that only its arguments decide, the same on every machine."""
  digest = hashlib.blake2b(f'{index} {attempt}'.encode(), digest_size=6).digest()
  return int.from_bytes(digest, 'big') / 2**48


def _checked(
  entry: Entry, info: video_io.ClipInfo | DataError, frames: int, fps: float
) -> Clip | Rejected:
  if isinstance(info, DataError):
    return Rejected(entry.name, str(info).removeprefix(f'{entry.path}: '))
  last = (entry.start or 0.0) + (frames - 1) / fps
  if last + 2 * video_io.TOLERANCE >= info.seconds:
    since = f' from {entry.start:.2f} s on' if entry.start else ''
    return Rejected(
      entry.name,
      f'is too short: it lasts {info.seconds:.2f} s, {frames} frames at {fps:g} per second{since} '
      f'need more than {last:.2f} s',
    )
  return Clip(str(entry.path), entry.caption, info.seconds, entry.start)


def _commonest(rejected: Sequence[Rejected]) -> str:
  """' (3 x ..., 2 x ...)': reasons that differ in numbers alone are counted together."""
  alike = collections.defaultdict(list)
  for entry in rejected:
    alike[re.sub(r'\d+(\.\d+)?', '0', entry.reason)].append(entry.reason)
  groups = sorted(alike.values(), key=len, reverse=True)[:3]
  return f' ({"; ".join(f"{len(group)} x {group[0]}" for group in groups)})' if groups else ''
