"""Lists the entries of a folder or a manifest of clips or sounds, without opening them.

A folder, with the folders inside it: each video or picture, or each file with sound, is an entry.
Its caption is the text of the file of the same name that ends in .txt (`clip.mp4`, `clip.txt`);
without one it is the name of the file, punctuation read as spaces and a trailing number dropped:
`red_ball-bounces_012.mp4` says 'red ball bounces'. Names that begin with a dot are left alone.

A manifest, .csv with a header or .jsonl: columns `video` or `sound` (a path relative to the
manifest), `caption` and, if wanted, `start` in seconds. `Captions` makes more of other columns. A
video with a `source_video`, a path too, is a pair: what an edit, the caption, makes of that one;
its `task` may say which kind of edit.
"""

import collections
import dataclasses
import errno
import math
import os
import pathlib
import re
import reprlib
import stat
import unicodedata
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from mgjax.core.errors import DataError, StorageError, printable
from mgjax.data.ingest.manifest import SUFFIXES, is_unicode, manifest_rows

_MOVIES = ('.mp4', '.m4v', '.mov', '.mkv', '.webm', '.avi')
_CAPTION_BYTES = 65_536
_CAPTION_CHARACTERS = 4096
_OF_PAIRS = (SOURCE, TASK) = ('source_video', 'task')
_NUMBER = re.compile(r'-?\d+(\.\d+)?(e-?\d+)?')
_COPY = 'copy of '
_SHOWN = 300  # characters of a name that is refused
_LISTED = 20  # lines about what is refused
_OF_A_NAME = (errno.ENAMETOOLONG, errno.ELOOP, errno.EACCES, errno.EPERM, errno.EINVAL)


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


def plain_caption(row: Mapping[str, Any]) -> Any:
  """Returns the caption of a row as it is."""
  return row.get('caption')


class Captions(NamedTuple):
  """How the fields of a row, in a manifest or the json of a tar, become its caption.

  `columns` are read beside `caption`, where they are there. `write` maps fields to the caption,
  None where there is none; a DataError says what is wrong.
  """

  columns: tuple[str, ...] = ()
  write: Callable[[Mapping[str, Any]], Any] = plain_caption


PLAIN = Captions()


@dataclasses.dataclass(frozen=True)
class Entry:
  """A listed file with its caption, not opened yet."""

  name: str  # as the user wrote it
  path: pathlib.Path
  caption: str
  start: float | None = None
  more: Mapping[str, str] = dataclasses.field(default_factory=dict)  # of a pair, see the file


@dataclasses.dataclass(frozen=True)
class Rejected:
  """An entry that cannot be used, and why."""

  name: str
  reason: str


def list_entries(
  path: pathlib.Path,
  report: str | os.PathLike[str] | None = None,
  medium: Medium = VIDEO,
  progress: Callable[[int, int], None] = lambda done, total: None,
  captions: Captions = PLAIN,
) -> list[Entry | Rejected]:
  """Lists what a folder or manifest (.csv, .jsonl) names, in a fixed order.

  Args:
    report: a file that is not an entry, should it lie in the folder.
    progress: called with how many lines of a manifest are read, and of how many.
    captions: of the rows of a manifest.

  Raises:
    DataError: there is no such path, or it is of another kind.
  """
  if path.is_dir():
    return list(_folder_entries(path, report, medium))
  if path.suffix.lower() in SUFFIXES and path.is_file():
    return list(_manifest_entries(path, medium, progress, captions))
  what = 'is neither a folder nor a .csv or .jsonl' if path.exists() else 'does not exist'
  raise DataError(f'{path} {what}; give a folder of clips with {medium.wanted}')


def clean_caption(caption: str) -> str:
  """The caption on one line, without the characters that control a terminal or turn its text.
  Raises DataError if nothing is left of it, or it holds half a character.
  """
  if not is_unicode(caption):
    raise DataError('its caption holds half a character (a lone surrogate)')
  if not (caption.isascii() and caption.isprintable()):
    caption = unicodedata.normalize('NFC', caption)
    caption = re.sub('[\x00-\x1f\x7f-\x9f]+', ' ', caption)
    caption = re.sub('[\u202a-\u202e\u2066-\u2069]', '', caption)
  caption = ' '.join(caption.split())[:_CAPTION_CHARACTERS]
  if not caption:
    raise DataError('its caption is empty')
  return caption


def unreadable(error: OSError, root: pathlib.Path) -> DataError:
  """Returns what it means that a file below `root` cannot be looked at: a StorageError if no other
  file there could be either."""
  if error.errno in _OF_A_NAME:
    return DataError(f'its path cannot be followed: {error.strerror}')
  return StorageError(f'{root} does not answer: {error.strerror}')


def alike(reasons: Iterable[str]) -> dict[str, int]:
  """Counts reasons, commonest first; those alike count as the commonest of them.

  Alike are reasons that differ in numbers alone, and copies of whichever clips.
  """
  groups: dict[str, collections.Counter] = collections.defaultdict(collections.Counter)
  for reason, count in collections.Counter(reasons).items():
    groups[_COPY if reason.startswith(_COPY) else _NUMBER.sub('0', reason)][reason] += count
  counted = {group.most_common(1)[0][0]: group.total() for group in groups.values()}
  return dict(sorted(counted.items(), key=lambda each: -each[1]))


def commonest(rejected: Sequence[Rejected]) -> str:
  """' (3 x ..., 2 x ...)': the commonest reasons."""
  groups = list(alike(entry.reason for entry in rejected).items())[:3]
  told = '; '.join(f'{count} x {printable(reason)}' for reason, count in groups)
  return f' ({told})' if told else ''


def listed(rejected: Sequence[Rejected], report: str | os.PathLike[str] | None = None) -> list[str]:
  """Returns a line for each of the first entries, then how many more `report` lists."""
  lines = [f'  {printable(entry.name)}: {printable(entry.reason)}' for entry in rejected[:_LISTED]]
  if more := rejected[_LISTED:]:
    place = f': see {report}' if report else ''
    lines.append(f'  and {len(more)} more{commonest(more)}{place}')
  return lines


def _folder_entries(
  root: pathlib.Path, report: str | os.PathLike[str] | None, medium: Medium
) -> Iterator[Entry | Rejected]:
  found, unlisted = _walk(root)
  for error in unlisted:
    yield Rejected(str(error.filename), f'cannot be listed: {error.strerror}')
  named = {path.with_suffix('') for path in found if path.suffix.lower() in medium.suffixes}
  places = _Places(root)
  for path in found:
    name = str(path.relative_to(root))
    suffix = path.suffix.lower()
    try:
      if path.is_dir():
        raise DataError('is a link to a folder, and those are not followed')
      elif suffix in medium.suffixes:
        caption = path.with_suffix('.txt')
        beside = os.path.lexists(caption)
        text = _read_caption(places, caption.relative_to(root)) if beside else spoken(path.stem)
        yield Entry(name, places.find(name), clean_caption(text))
      elif suffix == '.txt':
        if path.with_suffix('') not in named:
          raise DataError(f'is a caption without a {medium.word} of the same name')
      elif report is None or path.resolve() != pathlib.Path(report).resolve():
        ends = ', '.join(medium.suffixes)
        raise DataError(f'is not a {medium.word}: a name that ends in {ends} is expected')
    except StorageError:
      raise
    except DataError as error:
      yield Rejected(name, str(error))
    except OSError as error:
      yield Rejected(name, str(unreadable(error, root)))


def _manifest_entries(
  path: pathlib.Path, medium: Medium, progress: Callable[[int, int], None], captions: Captions
) -> Iterator[Entry | Rejected]:
  places = _Places(path.parent)
  columns = (medium.word, 'caption', 'start', *_OF_PAIRS, *captions.columns)
  for line, row in manifest_rows(path, columns, medium.suffixes, progress):
    name = f'line {line}'
    try:
      if isinstance(row, DataError):
        raise row
      file = row.get(medium.word)
      if not isinstance(file, str) or not (file := file.strip()):
        raise DataError(f'has no {medium.word}')
      name = f'line {line}: {file}'
      if not is_unicode(file):
        raise DataError('its path holds half a character (a lone surrogate)')
      if not isinstance(caption := captions.write(row), str):
        raise DataError('has no caption')
      where = places.find(file)
      caption = clean_caption(caption)
      yield Entry(name, where, caption, _start(row.get('start')), _of_pair(row, places))
    except StorageError:
      raise
    except DataError as error:
      shown = name if len(name) <= _SHOWN else f'{name[:_SHOWN]}...'
      yield Rejected(shown.encode('utf-8', 'backslashreplace').decode(), str(error))


def _of_pair(row: Mapping[str, Any], places: '_Places') -> dict[str, str]:
  source = row.get(SOURCE)
  if not source:
    return {}
  if not isinstance(source, str) or not is_unicode(source):
    raise DataError(f'{SOURCE} is {reprlib.repr(source)}, expected a path')
  return {SOURCE: os.fspath(places.find(source.strip())), TASK: str(row.get(TASK) or '')}


def _start(value: Any) -> float | None:
  if value is None or value == '':
    return None
  try:
    start = math.nan if isinstance(value, bool) else float(value)
  except (TypeError, ValueError, OverflowError):
    start = math.nan
  if not (math.isfinite(start) and start >= 0):
    raise DataError(f'start is {reprlib.repr(value)}, expected seconds, 0 or more')
  return start


class _Places:
  """The files that names mean inside a folder; nothing of the rest of the disk is found."""

  def __init__(self, root: pathlib.Path):
    self._given = root
    self._root = root.resolve()
    self._folders: dict[str, pathlib.Path] = {}

  def find(self, name: str) -> pathlib.Path:
    """Returns the file that a name means, which need not be there.

    Raises:
      DataError: it lies elsewhere, or no path can be so.
      StorageError: what the folder lies on does not answer.
    """
    if '\0' in name:
      raise DataError('its path holds a NUL character')
    if '://' in name and re.match(r'[A-Za-z][A-Za-z0-9+.-]*://', name):
      raise DataError('is a URL; only files beside the manifest are read')
    if os.path.isabs(name) or ('..' in name and '..' in pathlib.PurePath(name).parts):
      raise DataError(
        'its path is absolute or leads upwards (..); give it relative to the manifest'
      )
    folder, base = os.path.split(name)
    try:
      if folder not in self._folders:  # to follow a whole path takes longer than all else
        self._folders[folder] = self._inside(self._root / folder)
      path = self._folders[folder] / base
      return self._inside(path) if stat.S_ISLNK(path.lstat().st_mode) else path
    except (FileNotFoundError, NotADirectoryError):
      return path
    except OSError as error:
      raise unreadable(error, self._given) from error
    except RuntimeError as error:
      raise DataError('its path cannot be followed, its links lead round in circles') from error

  def _inside(self, path: pathlib.Path) -> pathlib.Path:
    path = path.resolve()
    if not path.is_relative_to(self._root):
      raise DataError('is a link that leaves the folder')
    return path


def _read_caption(places: _Places, name: pathlib.PurePath) -> str:
  try:
    path = places.find(str(name))
    if not path.is_file():  # opening a pipe or a device could wait for ever
      raise DataError(f'its caption {name.name} is not a regular file')
    with path.open('rb') as file:
      return file.read(_CAPTION_BYTES).decode('utf-8-sig')
  except (OSError, UnicodeDecodeError) as error:
    raise DataError(f'its caption {name.name} cannot be read as UTF-8 text: {error}') from error


def spoken(stem: str) -> str:
  """What the name of a file says: punctuation read as spaces, a trailing number dropped."""
  words = re.sub(r'[\W_]+', ' ', stem).strip()
  return re.sub(r' \d+$', '', words)


def _walk(root: pathlib.Path) -> tuple[list[pathlib.Path], list[OSError]]:
  """All files and links to folders below `root` but hidden ones, sorted, and what went wrong."""
  found = []
  errors = []
  for here, folders, files in os.walk(root, onerror=errors.append):
    folders[:] = [name for name in folders if not name.startswith('.')]
    links = [name for name in folders if os.path.islink(os.path.join(here, name))]
    found += [pathlib.Path(here, name) for name in links + files if not name.startswith('.')]
  return sorted(found), errors
