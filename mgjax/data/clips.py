"""Anyone's own clips: a folder or a list of video files with captions, as a source for Grain.

A folder, with the folders inside it: each video or picture is an entry. Its caption is the text of
the file of the same name that ends in .txt (`clip.mp4`, `clip.txt`); without one it is the name of
the file, punctuation read as spaces and a trailing number dropped: `red_ball-bounces_012.mp4` says
'red ball bounces'. Names that begin with a dot are left alone.

A manifest, .csv with a header or .jsonl: columns `video` (a path relative to the manifest),
`caption` and, if wanted, `start` in seconds.

What cannot be used is skipped, with its reason, and the reasons are kept: one bad file in a million
neither stops a run nor passes unseen.
"""

import collections
import concurrent.futures
import csv
import dataclasses
import hashlib
import io
import json
import logging
import math
import operator
import os
import pathlib
import re
import threading
import unicodedata
from collections.abc import Iterator, Sequence
from typing import Any, SupportsIndex

import numpy as np

from mgjax.core.errors import DataError
from mgjax.core.files import write_bytes
from mgjax.data import video_io

_SUFFIXES = (
  '.mp4', '.m4v', '.mov', '.mkv', '.webm', '.avi', '.gif', '.png', '.jpg', '.jpeg', '.webp',
)  # fmt: skip
_CAPTION_BYTES = 65_536
_CAPTION_CHARACTERS = 4096
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


@dataclasses.dataclass(frozen=True)
class _Entry:
  name: str  # as the user wrote it
  path: pathlib.Path
  caption: str
  start: float | None = None


@dataclasses.dataclass(frozen=True)
class _Rejected:
  name: str
  reason: str


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
  entries = _entries(path, report)

  def describe(file: pathlib.Path) -> video_io.ClipInfo | DataError:
    try:
      info = video_io.probe(file, limits)
      video_io.cover_size(info.height, info.width, size, limits)
      return info
    except DataError as error:
      return error

  files = list(dict.fromkeys(entry.path for entry in entries if isinstance(entry, _Entry)))
  with concurrent.futures.ThreadPoolExecutor(min(16, 4 * (os.cpu_count() or 1))) as pool:
    infos = dict(zip(files, pool.map(describe, files), strict=True))
  checked = [
    entry if isinstance(entry, _Rejected) else _checked(entry, infos[entry.path], frames, fps)
    for entry in entries
  ]
  clips = [entry for entry in checked if isinstance(entry, Clip)]
  rejected = [entry for entry in checked if isinstance(entry, _Rejected)]
  reasons = _commonest(rejected)
  if report is not None:
    lines = [json.dumps({'entry': entry.name, 'reason': entry.reason}) for entry in rejected]
    write_bytes(report, ''.join(line + '\n' for line in lines).encode())
    reasons += f'; all reasons are in {report}'
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
    limits: video_io.Limits = video_io.LIMITS,
  ):
    if not clips:
      raise DataError('a source of clips needs at least one clip')
    self.failures = 0
    self._bad_files: set[str] = set()
    self._clips = tuple(clips)
    self._frames, self._fps, self._size, self._limits = frames, fps, size, limits
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
        return self._read(clip, window, chance)
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

  def _read(self, clip: Clip, window: int, chance: float) -> dict[str, Any]:
    part = clip.seconds / self._windows(clip)
    start = window * part + chance * max(0.0, part - self._frames / self._fps)
    video = video_io.read_clip(
      clip.path,
      frames=self._frames,
      size=self._size,
      fps=self._fps,
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


def _entries(path: pathlib.Path, report: str | os.PathLike[str] | None) -> list[_Entry | _Rejected]:
  if path.is_dir():
    return list(_folder_entries(path, report))
  if path.suffix.lower() in ('.csv', '.jsonl') and path.is_file():
    return list(_manifest_entries(path))
  what = 'is neither a folder nor a .csv or .jsonl' if path.exists() else 'does not exist'
  raise DataError(
    f'{path} {what}; give a folder of clips with captions (clip.mp4, clip.txt) or a manifest '
    'with the columns video and caption'
  )


def _checked(
  entry: _Entry, info: video_io.ClipInfo | DataError, frames: int, fps: float
) -> Clip | _Rejected:
  if isinstance(info, DataError):
    return _Rejected(entry.name, str(info).removeprefix(f'{entry.path}: '))
  last = (entry.start or 0.0) + (frames - 1) / fps
  if last + 2 * video_io.TOLERANCE >= info.seconds:
    since = f' from {entry.start:.2f} s on' if entry.start else ''
    return _Rejected(
      entry.name,
      f'is too short: it lasts {info.seconds:.2f} s, {frames} frames at {fps:g} per second{since} '
      f'need more than {last:.2f} s',
    )
  return Clip(str(entry.path), entry.caption, info.seconds, entry.start)


def _folder_entries(
  root: pathlib.Path, report: str | os.PathLike[str] | None
) -> Iterator[_Entry | _Rejected]:
  found, unlisted = _walk(root)
  for error in unlisted:
    yield _Rejected(str(error.filename), f'cannot be listed: {error.strerror}')
  videos = {path.with_suffix('') for path in found if path.suffix.lower() in _SUFFIXES}
  for path in found:
    name, suffix = str(path.relative_to(root)), path.suffix.lower()
    try:
      if path.is_dir():
        raise DataError('is a link to a folder, and those are not followed')
      elif suffix in _SUFFIXES:
        caption = path.with_suffix('.txt')
        text = _read_caption(root, caption) if caption.exists() else _spoken(path.stem)
        yield _Entry(name, _resolved(root, name), _cleaned(text))
      elif suffix == '.txt':
        if path.with_suffix('') not in videos:
          raise DataError('is a caption without a video of the same name')
      elif report is None or path.resolve() != pathlib.Path(report).resolve():
        raise DataError(f'is not a video: a name that ends in {", ".join(_SUFFIXES)} is expected')
    except DataError as error:
      yield _Rejected(name, str(error))


def _manifest_entries(path: pathlib.Path) -> Iterator[_Entry | _Rejected]:
  rows = _csv_rows if path.suffix.lower() == '.csv' else _json_rows
  for line, row in rows(path):
    name = f'line {line}'
    try:
      if isinstance(row, DataError):
        raise row
      if not isinstance(row.get('video'), str) or not row['video'].strip():
        raise DataError('has no video')
      video = row['video'].strip()
      name = f'line {line}: {video}'
      if not isinstance(row.get('caption'), str):
        raise DataError('has no caption')
      entry_path = _resolved(path.parent, video)
      yield _Entry(name, entry_path, _cleaned(row['caption']), _start(row.get('start')))
    except DataError as error:
      yield _Rejected(name, str(error))


def _csv_rows(path: pathlib.Path) -> Iterator[tuple[int, dict[str, Any] | DataError]]:
  reader = csv.reader(io.StringIO(_text(path), newline=''), strict=True)
  header = [column.strip() for column in next(reader, [])]
  if not {'video', 'caption'} <= set(header):
    raise DataError(
      f'{path} has no columns named video and caption; its first line must name them: '
      f'video,caption[,start]. It reads: {",".join(header)[:200]!r}'
    )
  while True:
    try:
      row = next(reader)
    except StopIteration:
      return
    except csv.Error as error:
      yield reader.line_num, DataError(f'is not csv: {error}')
      continue
    if len(row) > len(header):
      yield reader.line_num, DataError('has more fields than columns; quote captions with commas')
    elif row:
      yield reader.line_num, dict(zip(header, row, strict=False))


def _json_rows(path: pathlib.Path) -> Iterator[tuple[int, dict[str, Any] | DataError]]:
  for line, text in enumerate(_text(path).split('\n'), 1):
    if not text.strip():
      continue
    try:
      row = json.loads(text)
    except (ValueError, RecursionError) as error:
      yield line, DataError(f'is not JSON: {error}')
      continue
    yield line, row if isinstance(row, dict) else DataError('is not a JSON object')


def _text(path: pathlib.Path) -> str:
  try:
    return path.read_text('utf-8-sig')
  except (OSError, ValueError) as error:
    raise DataError(f'{path} cannot be read as UTF-8 text: {error}') from error


def _start(value: Any) -> float | None:
  if value is None or value == '':
    return None
  try:
    start = float(value)
  except (TypeError, ValueError):
    start = math.nan
  if not (math.isfinite(start) and start >= 0):
    raise DataError(f'start is {value!r}, expected seconds, 0 or more')
  return start


def _resolved(root: pathlib.Path, name: str) -> pathlib.Path:
  """The file that `name` means inside `root`; a manifest must not read the rest of the disk."""
  if '\0' in name:
    raise DataError('its path holds a NUL character')
  if re.match(r'[A-Za-z][A-Za-z0-9+.-]*://', name):
    raise DataError('is a URL; only files beside the manifest are read')
  relative = pathlib.PurePath(name)
  if relative.is_absolute() or '..' in relative.parts:
    raise DataError('its path is absolute or leads upwards (..); give it relative to the manifest')
  try:
    path = (root / relative).resolve()
  except (OSError, RuntimeError) as error:
    raise DataError(f'its path cannot be followed ({error})') from error
  if not path.is_relative_to(root.resolve()):
    raise DataError('is a link that leaves the folder')
  return path


def _read_caption(root: pathlib.Path, path: pathlib.Path) -> str:
  try:
    with _resolved(root, str(path.relative_to(root))).open('rb') as file:
      return file.read(_CAPTION_BYTES).decode('utf-8-sig')
  except (OSError, UnicodeDecodeError) as error:
    raise DataError(f'its caption {path.name} cannot be read as UTF-8 text: {error}') from error


def _spoken(stem: str) -> str:
  words = re.sub(r'[\W_]+', ' ', stem).strip()
  return re.sub(r' \d+$', '', words)


def _cleaned(caption: str) -> str:
  """The caption on one line, without the characters that control a terminal or turn its text."""
  caption = unicodedata.normalize('NFC', caption.encode('utf-8', 'replace').decode())
  caption = re.sub('[\x00-\x1f\x7f-\x9f]+', ' ', caption)
  caption = re.sub('[\u202a-\u202e\u2066-\u2069]', '', caption)
  caption = ' '.join(caption.split())[:_CAPTION_CHARACTERS]
  if not caption:
    raise DataError('its caption is empty')
  return caption


def _walk(root: pathlib.Path) -> tuple[list[pathlib.Path], list[OSError]]:
  """All files and links to folders below `root` but hidden ones, sorted, and what went wrong."""
  found, errors = [], []
  for here, folders, files in os.walk(root, onerror=errors.append):
    folders[:] = [name for name in folders if not name.startswith('.')]
    links = [name for name in folders if os.path.islink(os.path.join(here, name))]
    found += [pathlib.Path(here, name) for name in links + files if not name.startswith('.')]
  return sorted(found), errors


def _commonest(rejected: Sequence[_Rejected]) -> str:
  """' (3 x ..., 2 x ...)': reasons that differ in numbers alone are counted together."""
  alike = collections.defaultdict(list)
  for entry in rejected:
    alike[re.sub(r'\d+(\.\d+)?', '0', entry.reason)].append(entry.reason)
  groups = sorted(alike.values(), key=len, reverse=True)[:3]
  return f' ({"; ".join(f"{len(group)} x {group[0]}" for group in groups)})' if groups else ''
