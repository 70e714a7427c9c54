"""Lists the entries of a folder or a manifest of clips or sounds, without opening them.

A folder, with the folders inside it: each video or picture, or each file with sound, is an entry.
Its caption is the text of the file of the same name that ends in .txt (`clip.mp4`, `clip.txt`);
without one it is the name of the file, punctuation read as spaces and a trailing number dropped:
`red_ball-bounces_012.mp4` says 'red ball bounces'. Names that begin with a dot are left alone.

A manifest, .csv with a header or .jsonl: columns `video` or `sound` (a path relative to the
manifest), `caption` and, if wanted, `start` in seconds.
"""

import collections
import csv
import dataclasses
import io
import json
import math
import os
import pathlib
import re
import unicodedata
from collections.abc import Iterator, Sequence
from typing import Any

from mgjax.core.errors import DataError, printable

_MOVIES = ('.mp4', '.m4v', '.mov', '.mkv', '.webm', '.avi')
_CAPTION_BYTES = 65_536
_CAPTION_CHARACTERS = 4096


@dataclasses.dataclass(frozen=True)
class Medium:
  """What entries are: the word for one, which names its column too, and how its file may end."""

  word: str
  suffixes: tuple[str, ...]

  @property
  def wanted(self) -> str:
    """What to give, in words."""
    first = f'clip{self.suffixes[0]}'
    return f'captions ({first}, clip.txt), or a manifest with the columns {self.word} and caption'


VIDEO = Medium('video', (*_MOVIES, '.gif', '.png', '.jpg', '.jpeg', '.webp'))
SOUND = Medium(
  'sound', ('.wav', '.flac', '.mp3', '.ogg', '.oga', '.opus', '.aif', '.aiff', '.m4a', *_MOVIES)
)


@dataclasses.dataclass(frozen=True)
class Entry:
  """A listed file with its caption, not opened yet."""

  name: str  # as the user wrote it
  path: pathlib.Path
  caption: str
  start: float | None = None


@dataclasses.dataclass(frozen=True)
class Rejected:
  """An entry that cannot be used, and why."""

  name: str
  reason: str


def list_entries(
  path: pathlib.Path, report: str | os.PathLike[str] | None = None, medium: Medium = VIDEO
) -> list[Entry | Rejected]:
  """Lists what a folder or manifest names, in a fixed order.

  Args:
    path: a folder, a .csv or a .jsonl.
    report: a file that is not an entry, should it lie in the folder.
    medium: what is looked for.

  Raises:
    DataError: there is no such path, or it is of another kind.
  """
  if path.is_dir():
    return list(_folder_entries(path, report, medium))
  if path.suffix.lower() in ('.csv', '.jsonl') and path.is_file():
    return list(_manifest_entries(path, medium.word))
  what = 'is neither a folder nor a .csv or .jsonl' if path.exists() else 'does not exist'
  raise DataError(f'{path} {what}; give a folder of clips with {medium.wanted}')


def clean_caption(caption: str) -> str:
  """The caption on one line, without the characters that control a terminal or turn its text.

  Raises:
    DataError: nothing is left of it.
  """
  caption = unicodedata.normalize('NFC', caption.encode('utf-8', 'replace').decode())
  caption = re.sub('[\x00-\x1f\x7f-\x9f]+', ' ', caption)
  caption = re.sub('[\u202a-\u202e\u2066-\u2069]', '', caption)
  caption = ' '.join(caption.split())[:_CAPTION_CHARACTERS]
  if not caption:
    raise DataError('its caption is empty')
  return caption


def commonest(rejected: Sequence[Rejected]) -> str:
  """' (3 x ..., 2 x ...)': reasons that differ in numbers alone are counted together."""
  alike = collections.defaultdict(list)
  for entry in rejected:
    alike[re.sub(r'\d+(\.\d+)?', '0', entry.reason)].append(entry.reason)
  groups = sorted(alike.values(), key=len, reverse=True)[:3]
  told = '; '.join(f'{len(group)} x {printable(group[0])}' for group in groups)
  return f' ({told})' if groups else ''


def _folder_entries(
  root: pathlib.Path, report: str | os.PathLike[str] | None, medium: Medium
) -> Iterator[Entry | Rejected]:
  found, unlisted = _walk(root)
  for error in unlisted:
    yield Rejected(str(error.filename), f'cannot be listed: {error.strerror}')
  named = {path.with_suffix('') for path in found if path.suffix.lower() in medium.suffixes}
  for path in found:
    name, suffix = str(path.relative_to(root)), path.suffix.lower()
    try:
      if path.is_dir():
        raise DataError('is a link to a folder, and those are not followed')
      elif suffix in medium.suffixes:
        caption = path.with_suffix('.txt')
        text = _read_caption(root, caption) if caption.exists() else _spoken(path.stem)
        yield Entry(name, _resolved(root, name), clean_caption(text))
      elif suffix == '.txt':
        if path.with_suffix('') not in named:
          raise DataError(f'is a caption without a {medium.word} of the same name')
      elif report is None or path.resolve() != pathlib.Path(report).resolve():
        ends = ', '.join(medium.suffixes)
        raise DataError(f'is not a {medium.word}: a name that ends in {ends} is expected')
    except DataError as error:
      yield Rejected(name, str(error))


def _manifest_entries(path: pathlib.Path, word: str) -> Iterator[Entry | Rejected]:
  rows = _csv_rows(path, word) if path.suffix.lower() == '.csv' else _json_rows(path)
  for line, row in rows:
    name = f'line {line}'
    try:
      if isinstance(row, DataError):
        raise row
      if not isinstance(row.get(word), str) or not row[word].strip():
        raise DataError(f'has no {word}')
      file = row[word].strip()
      name = f'line {line}: {file}'
      if not isinstance(row.get('caption'), str):
        raise DataError('has no caption')
      entry_path = _resolved(path.parent, file)
      yield Entry(name, entry_path, clean_caption(row['caption']), _start(row.get('start')))
    except DataError as error:
      yield Rejected(name, str(error))


def _csv_rows(path: pathlib.Path, word: str) -> Iterator[tuple[int, dict[str, Any] | DataError]]:
  reader = csv.reader(io.StringIO(_text(path), newline=''), strict=True)
  header = [column.strip() for column in next(reader, [])]
  if not {word, 'caption'} <= set(header):
    raise DataError(
      f'{path} has no columns named {word} and caption; its first line must name them: '
      f'{word},caption[,start]. It reads: {",".join(header)[:200]!r}'
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
    found = _resolved(root, str(path.relative_to(root)))
    if not found.is_file():  # opening a pipe or a device could wait for ever
      raise DataError(f'its caption {path.name} is not a regular file')
    with found.open('rb') as file:
      return file.read(_CAPTION_BYTES).decode('utf-8-sig')
  except (OSError, UnicodeDecodeError) as error:
    raise DataError(f'its caption {path.name} cannot be read as UTF-8 text: {error}') from error


def _spoken(stem: str) -> str:
  words = re.sub(r'[\W_]+', ' ', stem).strip()
  return re.sub(r' \d+$', '', words)


def _walk(root: pathlib.Path) -> tuple[list[pathlib.Path], list[OSError]]:
  """All files and links to folders below `root` but hidden ones, sorted, and what went wrong."""
  found, errors = [], []
  for here, folders, files in os.walk(root, onerror=errors.append):
    folders[:] = [name for name in folders if not name.startswith('.')]
    links = [name for name in folders if os.path.islink(os.path.join(here, name))]
    found += [pathlib.Path(here, name) for name in links + files if not name.startswith('.')]
  return sorted(found), errors
