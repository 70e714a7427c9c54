"""An index of clips: duration, size and rate of each, known without opening any file.

The index of a folder comes from probing its files. That of records reads columns stored beside the
manifest, so a hundred million clips cost a few numbers each and no objects.
"""

import concurrent.futures
import dataclasses
import functools
import hashlib
import json
import logging
import math
import os
import pathlib
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from mgjax.core.configuration.keys import Fields
from mgjax.core.errors import DataError, printable
from mgjax.core.files import write_bytes
from mgjax.data.ingest.clip_check import COLUMNS, INTERLACED, WHOLE, open_row
from mgjax.data.ingest.entries import (
  CAPTION_CHARACTERS,
  CUT,
  PLAIN,
  SOURCE,
  Captions,
  Entry,
  Medium,
  Rejected,
  commonest,
  count_clips,
  list_entries,
  listed,
  why_uncaptioned,
  without_caption,
)
from mgjax.data.media.containers import File
from mgjax.data.records.reader import Records

_OF_EVERY_ROW = {'media', 'caption', 'source', 'text_key', *COLUMNS}

_log = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class Clip:
  """A readable file with its caption; with a `start`, only what follows it counts.

  Of a sound alone, `fps`, `height` and `width` are 0. Sizes are as shown, upright. `more` are the
  fields of its record that not every record has, such as references; samples carry them along.
  """

  file: File
  caption: str
  seconds: float
  start: float | None = None
  fps: float = 0.0
  height: float = 0.0
  width: float = 0.0
  sounding: bool = False
  name: str = ''  # as the user wrote it
  interlaced: bool = False
  more: Fields = dataclasses.field(default_factory=dict, compare=False)


class ClipIndex:
  """Random access to clips, with arrays of what is known of all of them.

  `columns` are name -> array with an element a clip: `seconds`, `start` (NaN where any window may
  be taken), `fps`, `height`, `width`, `sounding`.
  """

  def __init__(
    self,
    columns: Mapping[str, np.ndarray],
    get: Callable[[int], Clip],
    name: Callable[[int], str],
    fingerprint: str,
    captions: Sequence[str] | None = None,
  ):
    """Makes an index.

    Args:
      get: reads clip `i`; picklable, as is `name`, which says what a report calls it.
      fingerprint: of the content: whatever is read through `get` depends on nothing else.
      captions: of all clips, where they are known without reading them.
    """
    self.columns = {key: np.asarray(column) for key, column in columns.items()}
    self._get, self._name, self._fingerprint = get, name, fingerprint
    self._captions = captions
    self._chosen = np.arange(len(self.columns['seconds']))

  def __len__(self) -> int:
    return len(self._chosen)

  def __getitem__(self, index: int) -> Clip:
    return self._get(int(self._chosen[index]))

  def name(self, index: int) -> str:
    return self._name(int(self._chosen[index]))

  def every_caption(self) -> list[str] | None:
    """Returns the caption of each clip, or None where one would have to read the clips for them."""
    known = self._captions
    return None if known is None else [known[index] for index in self._chosen]

  @property
  def fingerprint(self) -> str:
    chosen = hashlib.sha256(np.ascontiguousarray(self._chosen, np.int64)).hexdigest()
    return f'{self._fingerprint}/{chosen[:16]}'

  @property
  def begin(self) -> np.ndarray:
    """Where the usable part of each clip begins, in seconds."""
    return np.nan_to_num(self.columns['start'])

  def take(self, indices: np.ndarray) -> 'ClipIndex':
    part = object.__new__(ClipIndex)
    part.columns = {name: column[indices] for name, column in self.columns.items()}
    part._get, part._name, part._fingerprint = self._get, self._name, self._fingerprint
    part._captions = self._captions
    part._chosen = self._chosen[indices]
    return part


def index_of_clips(clips: Sequence[Clip]) -> ClipIndex:
  """Returns an index of clips in memory."""
  clips = tuple(clips)
  given = {name: [getattr(clip, name) for clip in clips] for name in COLUMNS}
  given['start'] = [math.nan if start is None else start for start in given['start']]
  kinds = {'sounding': bool}
  columns = {name: np.array(each, kinds.get(name, float)) for name, each in given.items()}
  # Where the files lie may change between a run and its resumption, what they are may not.
  names = tuple(clip.name or str(clip.file) for clip in clips)
  known = [
    (
      name,
      clip.caption,
      round(clip.seconds, 2),
      clip.start,
      *(pathlib.PurePath(str(each)).name for each in clip.more.values()),
    )
    for name, clip in zip(names, clips, strict=True)
  ]
  digest = hashlib.sha256(json.dumps(known).encode()).hexdigest()[:16]
  captions = tuple(clip.caption for clip in clips)
  return ClipIndex(columns, clips.__getitem__, names.__getitem__, digest, captions)


def recorded_clips(records: Records, only: str = '') -> ClipIndex:
  """Returns an index of clip records; a clip's file is read when the clip is asked for.

  `only` is a column of truth values, as in 'cross', whose rows are taken; behind 'not ' the others.
  Raises DataError if the records hold something else.
  """
  columns = {name: records.column(name) for name in COLUMNS}
  columns['start'] = np.where(columns['start'] == WHOLE, math.nan, columns['start'])
  get = functools.partial(_recorded_clip, records)
  clips = ClipIndex(columns, get, 'row {}'.format, records.fingerprint)
  if not only:
    return clips
  name = only.removeprefix('not ')
  return clips.take(np.flatnonzero(records.column(name).astype(bool) != (name != only)))


def _recorded_clip(records: Records, index: int) -> Clip:
  row = records[index]
  fields = {key: row[key] for key in COLUMNS}
  fields['start'] = None if fields['start'] == WHOLE else fields['start']
  more = {key: value for key, value in row.items() if key not in _OF_EVERY_ROW}
  return Clip(open_row(row), row['caption'], name=row['source'], more=more, **fields)


def probe_entries(
  path: pathlib.Path,
  medium: Medium,
  probe: Callable[[pathlib.Path], Mapping[str, float | bool]],
  report: str | os.PathLike[str] | None = None,
  captions: Captions = PLAIN,
) -> tuple[list[Clip], list[Rejected]]:
  """Probes what a folder or manifest (.csv, .jsonl) names, many files at once, each file once.

  Args:
    probe: file -> fields of a `Clip`, at least `seconds`; a DataError says why it cannot be used.
    report: a file that is no entry, should it lie in the folder.

  Raises:
    DataError: there is no such path.
  """
  entries = list_entries(path, report, medium, captions=captions)

  def describe(file: pathlib.Path) -> Mapping[str, float | bool] | DataError:
    try:
      return probe(file)
    except DataError as error:
      return error

  named = [entry for entry in entries if isinstance(entry, Entry)]
  sources = [pathlib.Path(entry.more[SOURCE]) for entry in named if entry.more]
  files = list(dict.fromkeys([*(entry.path for entry in named), *sources]))
  with concurrent.futures.ThreadPoolExecutor(min(16, 4 * (os.cpu_count() or 1))) as pool:
    found = dict(zip(files, pool.map(describe, files), strict=True))
  clips = []
  rejected = []
  tell_captions(path, entries)
  for entry in entries:
    if isinstance(entry, Rejected):
      rejected.append(entry)
    elif isinstance(known := _of_both(entry, found), DataError):
      reason = str(known).removeprefix(printable(f'{entry.path}: ', keep='\n'))
      rejected.append(Rejected(entry.name, reason))
    else:
      file = str(entry.path)
      caption = entry.caption
      more = {'start': entry.start, 'name': entry.name, 'more': entry.more}
      clips.append(Clip(file, caption, **more, **known))
  counted = {
    CUT: sum(len(entry.caption) >= CAPTION_CHARACTERS for entry in named),
    INTERLACED: sum(clip.interlaced for clip in clips),
  }
  for remark, count in counted.items():
    if count:
      tell_once(path, f'{count} of {count_clips(entries)} clips {remark}')
  return clips, rejected


def _of_both(
  entry: Entry, found: Mapping[pathlib.Path, Mapping[str, float | bool] | DataError]
) -> Mapping[str, float | bool] | DataError:
  """What is known of an entry; a pair lasts as long as the shorter of its two."""
  known = found[entry.path]
  source = found[pathlib.Path(entry.more[SOURCE])] if entry.more else known
  if isinstance(known, DataError) or isinstance(source, DataError):
    return known if isinstance(known, DataError) else source
  return {**known, 'seconds': min(known['seconds'], source['seconds'])}


def announce(
  path: str | os.PathLike[str],
  used: int,
  rejected: Sequence[Rejected],
  wanted: str,
  report: str | os.PathLike[str] | None = None,
  more: int = 0,
) -> None:
  """Logs how many clips are used and why others are not: of each of those once in a process.

  Args:
    wanted: what to give if there is nothing usable.
    report: where to write the rejected entries, one JSON line {"entry", "reason"} each.
    more: how many others were rejected as the last of them were.

  Raises:
    DataError: none is used; says how many were rejected and the commonest reasons.
  """
  place = ''
  if report is not None:
    lines = [json.dumps({'entry': entry.name, 'reason': entry.reason}) for entry in rejected]
    write_bytes(report, ''.join(line + '\n' for line in lines).encode())
    place = f'; all reasons are in {report}' if rejected else ''
    place += f', but for {more} like the last' if more else ''
  count = len(rejected) + more
  root = os.path.abspath(path)
  if not used:
    reasons = commonest(rejected) + place
    raise DataError(f'no usable clip in {path}: {count} rejected{reasons}; give {wanted}')
  new = [entry for entry in rejected if (root, entry.name) not in _told]
  _told.update((root, entry.name) for entry in new)
  if new:
    lines = '\n'.join(listed(new, report))
    _log.warning('%s: %d clips, %d rejected%s\n%s', path, used, count, place, lines)
  elif (root, used, count) not in _told:
    _log.info('%s: %d clips, %s rejected', path, used, count or 'none')
  _told.add((root, used, count))


def tell_captions(path: str | os.PathLike[str], entries: Sequence[Entry | Rejected]) -> None:
  """Logs how many entries have no caption, once in a process."""
  if lacking := [entry for entry in entries if why_uncaptioned(entry)]:
    said = without_caption(lacking, count_clips(entries))
    tell_once(path, f'{said}; files without go by their names')


def tell_once(path: str | os.PathLike[str], text: str) -> None:
  """Logs a warning about what lies at a path, once in a process."""
  if (os.path.abspath(path), text) not in _told:
    _told.add((os.path.abspath(path), text))
    _log.warning('%s: %s', path, text)


# What was said in this process: a command opens the same clips for every split and every stage.
_told: set[tuple[str, str] | tuple[str, int, int]] = set()
