"""Lists the entries of a folder or a manifest of clips or sounds, without opening them.

A folder, with the folders inside it: each video or picture, or each file with sound, is an entry.
Its caption is, wherever a tool leaves it:

- the text of the file of the same name that ends in .txt, .caption or .cap (`clip.mp4`, `clip.txt`
  or `clip.mp4.txt`), or a field of such a .json; it may lie in a folder of captions beside the one
  of clips (`videos/clip.mp4`, `labels/clip.txt`);
- that of a list in the folder that names the clip: a manifest, such as `metadata.jsonl`, or two
  files with as many lines, such as `videos.txt` and `prompts.txt`;
- without any the name of the file, punctuation read as spaces and a trailing number dropped:
  `red_ball-bounces_012.mp4` says 'red ball bounces'. Such an entry says so in `uncaptioned`.

Two captions of one clip that differ reject it. Names that begin with a dot are left alone.

A manifest, .csv or .tsv with a header, .json, .jsonl or .parquet: columns `video` or `sound` (a
path relative to the manifest), `caption`, or what else `columns.py` reads, and, if wanted, `start`
in seconds. `Captions` makes more of other columns. A video with a `source_video`, a path too, is a
pair: what an edit, the caption, makes of that one; its `task` may say which kind of edit.
"""

import collections
import dataclasses
import json
import math
import os
import pathlib
import re
import reprlib
import unicodedata
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from mgjax.core.errors import DataError, StorageError, printable
from mgjax.data.ingest.columns import caption_column, file_column, first_of_several, shown_names
from mgjax.data.ingest.manifest import SUFFIXES, Columns, encoding_of, is_unicode, manifest_rows
from mgjax.data.ingest.places import Places, unreadable

_MOVIES = ('.mp4', '.m4v', '.mov', '.mkv', '.webm', '.avi')
TEXTS = ('.txt', '.caption', '.cap')  # how a file ends that holds the caption of a clip
_CAPTION_BYTES = 1 << 20
_LIST_BYTES = 256 << 20  # of a list with a caption a line
CAPTION_CHARACTERS = 4096  # what follows in a caption is left out
CUT = f'have a caption that reaches {CAPTION_CHARACTERS} characters; what follows is left out'
NO_CAPTION = 'has no caption'
_LABELS = ('label', 'labels', 'annotation', 'annotations')  # folders of captions
_JOINERS = '\u200c\u200d'  # without which words of Persian or Hindi are other words
_OF_PAIRS = (SOURCE, TASK) = ('source_video', 'task')
_NUMBER = re.compile(r'-?\d+(\.\d+)?(e-?\d+)?')
_COPY = 'copy of '
_EMPTY = 'its caption is empty'
_SHOWN = 300  # characters of a name that is refused
_LISTED = 20  # lines about what is refused


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
  uncaptioned: bool = False  # the caption is the file's name, for want of another


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
  media_column: str = '',
  caption_column: str = '',
) -> list[Entry | Rejected]:
  """Lists what a folder or manifest names, in a fixed order.

  Args:
    report: a file that is not an entry, should it lie in the folder.
    progress: called with how many lines of a manifest are read, and of how many.
    captions: of the rows of a manifest.
    media_column: of a manifest, as `caption_column`: the one that is read; by default by its name.

  Raises:
    DataError: there is no such path, or it is of another kind, or a list in it has another number
      of lines than that of its captions.
  """
  columns = Columns(medium.word, media_column, caption_column)
  lists = _Lists(medium, captions, columns, progress)
  if path.is_dir():
    return list(_folder_entries(path, report, lists))
  if path.suffix.lower() in SUFFIXES and path.is_file():
    places = Places(path.parent, medium.suffixes)
    return [entry for _, entry in lists.entries(places, lists.rows(path))]
  kinds = f'{", ".join(SUFFIXES[:-1])} or {SUFFIXES[-1]}'
  what = f'is neither a folder nor a {kinds}' if path.exists() else 'does not exist'
  raise DataError(f'{path} {what}; give a folder of clips with {medium.wanted}')


def without_caption(names: Sequence[str], count: int) -> str:
  """Says how many of `count` clips have no caption, and what the first of them is called."""
  first = f', the first is {printable(names[0])}' if names else ''
  return f'{len(names)} of {count} clips have no caption{first}'


def is_uncaptioned(entry: Any) -> bool:
  """Returns whether an entry has no caption but its name, or was rejected for want of one."""
  if isinstance(entry, Rejected):
    return entry.reason.startswith((NO_CAPTION, _EMPTY))
  return entry.uncaptioned


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
  caption = ' '.join(caption.split())[:CAPTION_CHARACTERS]
  if not caption:
    raise DataError(_EMPTY)
  return caption


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


class _Lists(NamedTuple):
  """How lists of clips are read."""

  medium: Medium
  captions: Captions
  columns: Columns
  progress: Callable[[int, int], None]

  def rows(self, path: pathlib.Path) -> Iterator[tuple[int, Mapping[str, Any] | DataError]]:
    """The rows of a manifest."""
    more = ('start', *_OF_PAIRS, *self.captions.columns)
    return manifest_rows(path, self.columns, more, self.medium.suffixes, self.progress)

  def entries(
    self,
    places: Places,
    rows: Iterable[tuple[int, Mapping[str, Any] | DataError]],
    below: str = '',
    of: str = '',
  ) -> Iterator[tuple[pathlib.Path | None, Entry | Rejected]]:
    """Yields where the file of each row lies, None if that is not known, and its entry.

    Paths are relative to the folder `below`; names of entries begin with `of`.
    """
    for line, row in rows:
      name = f'{of}line {line}'
      where = None
      try:
        if isinstance(row, DataError):
          raise row
        file = row.get(self.medium.word)
        if not isinstance(file, str) or not (file := file.strip()):
          raise DataError(f'has no {self.medium.word}')
        name = f'{name}: {file}'
        if not is_unicode(file):
          raise DataError('its path holds half a character (a lone surrogate)')
        where = places.locate(file, below)
        if not isinstance(caption := self.captions.write(row), str):
          raise DataError(f'{NO_CAPTION} among its fields: {shown_names(row)}')
        path, caption = places.follow(where), clean_caption(caption)
        pair = _of_pair(row, places, below)
        yield where, Entry(name, path, caption, _start(row.get('start')), pair)
      except StorageError:
        raise
      except DataError as error:
        shown = name if len(name) <= _SHOWN else f'{name[:_SHOWN]}...'
        yield where, Rejected(shown.encode('utf-8', 'backslashreplace').decode(), str(error))


def _folder_entries(
  root: pathlib.Path, report: str | os.PathLike[str] | None, lists: _Lists
) -> Iterator[Entry | Rejected]:
  found, unlisted = _walk(root)
  for error in unlisted:
    yield Rejected(str(error.filename), f'cannot be listed: {error.strerror}')
  medium = lists.medium
  places = Places(root, medium.suffixes)
  texts = _texts_of(root, found, medium)
  listed = _Listed(root, places, lists)
  taken = {text for each in texts.values() for text in each}
  listed.read([path for path in found if path not in taken and not _is_same(path, report)])
  for path in found:
    name = str(path.relative_to(root))
    suffix = path.suffix.lower()
    try:
      if path.is_dir():
        raise DataError('is a link to a folder, and those are not followed')
      elif suffix in medium.suffixes:
        told = {each.name: _caption_in(each, places, lists.columns) for each in texts.get(path, ())}
        yield from _of_clip(name, places, told, listed.naming(path))
      elif reason := listed.refused.get(path):
        raise DataError(reason)
      elif path in listed.lists or _is_read(path, taken, places, lists.columns):
        continue
      elif suffix in TEXTS:
        raise DataError(f'is a caption without a {medium.word} of the same name')
      elif not _is_same(path, report):
        ends = ', '.join(medium.suffixes)
        raise DataError(f'is not a {medium.word}: a name that ends in {ends} is expected')
    except StorageError:
      raise
    except DataError as error:
      yield Rejected(name, str(error))
    except OSError as error:
      yield Rejected(name, str(unreadable(error, root)))
  yield from listed.missing


def _is_read(
  path: pathlib.Path, taken: Collection[pathlib.Path], places: Places, columns: Columns
) -> bool:
  """Whether a file is the caption of a clip."""
  if path.suffix.lower() != '.json' or path not in taken:
    return path in taken
  return _caption_in(path, places, columns) is not None


def _is_same(path: pathlib.Path, report: str | os.PathLike[str] | None) -> bool:
  return report is not None and path.resolve() == pathlib.Path(report).resolve()


def _of_clip(
  name: str,
  places: Places,
  told: Mapping[str, str | None],
  named: Mapping[str, Sequence[Entry | Rejected]],
) -> Iterator[Entry | Rejected]:
  """The entries of a clip of a folder.

  Args:
    told: what each file of the clip's name says, None where that is no caption.
    named: name of a list -> its entries of the clip.
  """
  captions = {text: clean_caption(said) for text, said in told.items() if said is not None}
  if captions:  # a list that has the clip, but no caption of it, does not matter then
    named = {of: rows for of, rows in named.items() if not all(map(is_uncaptioned, rows))}
  each_says = {**captions, **{of: ' '.join(map(_said, rows)) for of, rows in named.items()}}
  rows = next(iter(named.values()), [])
  alone = len(named) == 1 and len(rows) > 1  # which has parts of the clip, or several captions
  if len(set(each_says.values())) > 1 and not alone:
    raise DataError(f'has captions that differ, in {" and in ".join(each_says)}; leave one of them')
  if not rows:
    caption = next(iter(captions.values()), None)
    spoken_name = clean_caption(spoken(pathlib.Path(name).stem)) if caption is None else caption
    yield Entry(name, places.find(name), spoken_name, uncaptioned=caption is None)
  for number, each in enumerate(rows, 1):
    yield dataclasses.replace(each, name=name if number == 1 else f'{name} (caption {number})')


def _said(each: Entry | Rejected) -> str:
  return each.caption if isinstance(each, Entry) else each.reason


class _Listed:
  """What the lists in a folder say of its clips.

  Attributes:
    lists: the files that are such lists.
    refused: files that are not, and why, where that is worth a word.
    missing: entries whose file is not there.
  """

  def __init__(self, root: pathlib.Path, places: Places, lists: _Lists):
    self.lists: set[pathlib.Path] = set()
    self.refused: dict[pathlib.Path, str] = {}
    self.missing: list[Entry | Rejected] = []
    self._root, self._places, self._how = root, places, lists
    self._named: dict[pathlib.Path, dict[str, list[Entry | Rejected]]] = {}

  def naming(self, clip: pathlib.Path) -> Mapping[str, list[Entry | Rejected]]:
    """Name of a list -> its entries of a clip."""
    known = self._named
    return known.get(self._places.locate(str(clip.relative_to(self._root))), {}) if known else {}

  def read(self, files: Sequence[pathlib.Path]) -> None:
    """Reads those of the files that are lists; DataError if one has not a line for each clip."""
    for path in files:
      if path.suffix.lower() in SUFFIXES and path.is_file():
        self._read(path, self._how.rows(path))
    lines = [path for path in files if path.suffix.lower() == '.txt']
    folders = {path.parent for path in lines if caption_column((path.stem,))}
    texts = {
      path: _lines_in(path, self._places, self._root) for path in lines if path.parent in folders
    }
    for clips, names in texts.items():
      if not names or not all(name.lower().endswith(self._how.medium.suffixes) for name in names):
        continue
      for captions, said in texts.items():
        if (
          captions.parent == clips.parent and captions != clips and caption_column((captions.stem,))
        ):
          if len(said) != len(names):
            raise DataError(
              f'{captions} has {len(said)} lines and {clips.name} {len(names)}; expected a caption '
              'for each clip, a line each'
            )
          pairs = zip(names, said, strict=True)
          word = self._how.medium.word
          rows = [{word: name, 'caption': caption} for name, caption in pairs]
          self._read(captions, enumerate(rows, 1))
          self.lists.add(clips)

  def _read(self, path: pathlib.Path, rows: Iterable[tuple[int, Any]]) -> None:
    name = str(path.relative_to(self._root))
    below = os.path.dirname(name)
    try:
      entries = list(self._how.entries(self._places, rows, below, f'{name} '))
    except StorageError:
      raise
    except DataError as error:
      self.refused[path] = str(error).removeprefix(str(path)).lstrip(' :')
      return
    there = [where is not None and where.is_file() for where, _ in entries]
    if not any(there):
      first = entries[0][1] if entries else None
      if isinstance(first, Rejected):
        self.refused[path] = f'names no {self._how.medium.word}: its first row {first.reason}'
      if not isinstance(first, Entry) or path.suffix.lower() == '.json':
        return
    self.lists.add(path)
    for (where, entry), is_there in zip(entries, there, strict=True):
      if is_there and where.suffix.lower() in self._how.medium.suffixes:
        self._named.setdefault(where, {}).setdefault(name, []).append(entry)
      else:
        self.missing.append(entry)


def _lines_in(path: pathlib.Path, places: Places, root: pathlib.Path) -> list[str]:
  text = read_text(path.relative_to(root), places, _LIST_BYTES).rstrip()
  return [line.strip() for line in text.split('\n')] if text else []


def _texts_of(
  root: pathlib.Path, found: Sequence[pathlib.Path], medium: Medium
) -> Mapping[pathlib.Path, list[pathlib.Path]]:
  """The files that hold the caption of each clip: those of its name, or in a folder of captions."""
  clips = collections.defaultdict(list)
  for path in found:
    if path.suffix.lower() in medium.suffixes:
      for name in (str(path.with_suffix('')), str(path)):
        clips[unicodedata.normalize('NFC', name)].append(path)
  texts = collections.defaultdict(list)
  alone = collections.defaultdict(list)
  for path in found:
    if path.suffix.lower() in (*TEXTS, '.json'):
      owners = clips.get(unicodedata.normalize('NFC', str(path.with_suffix(''))), ())
      for clip in owners:
        texts[clip].append(path)
      if not owners and path.suffix.lower() in TEXTS:
        alone[_without(root, path, lambda part: caption_column((part,)) or part in _LABELS)].append(
          path
        )
  for path in found if alone else ():
    if path.suffix.lower() in medium.suffixes and path not in texts:
      beside = alone.get(_without(root, path, lambda part: file_column((part,), medium.word)), [])
      if len(beside) == 1:
        texts[path] = beside
  return texts


def _without(
  root: pathlib.Path, path: pathlib.Path, is_kind: Callable[[str], Any]
) -> tuple[str, ...]:
  """A path without its ending and what in it says a kind: a/videos/1.mp4 and a/labels/1.txt."""
  parts = unicodedata.normalize('NFC', str(path.relative_to(root).with_suffix(''))).split(os.sep)
  return tuple(part for part in parts if not is_kind(part.lower()))


def _caption_in(path: pathlib.Path, places: Places, columns: Columns) -> str | None:
  name = path.relative_to(places.root)
  if path.suffix.lower() != '.json':
    return read_text(name, places)
  try:
    fields = json.loads(read_text(name, places))
  except (ValueError, RecursionError):
    return None
  column = columns.found(tuple(fields))[1] if isinstance(fields, dict) else None
  caption = None if column is None else first_of_several(fields[column])
  return caption if isinstance(caption, str) else None


def _of_pair(row: Mapping[str, Any], places: Places, below: str) -> dict[str, str]:
  source = row.get(SOURCE)
  if not source:
    return {}
  if not isinstance(source, str) or not is_unicode(source):
    raise DataError(f'{SOURCE} is {reprlib.repr(source)}, expected a path')
  place = places.follow(places.locate(source.strip(), below))
  return {SOURCE: os.fspath(place), TASK: str(row.get(TASK) or '')}


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


def read_text(name: pathlib.PurePath, places: Places, most: int = _CAPTION_BYTES) -> str:
  """Reads a file of text inside a folder; DataError if it cannot be, or is longer than `most`."""
  try:
    path = places.find(str(name))
    if not path.is_file():  # opening a pipe or a device could wait for ever
      raise DataError(f'its caption {name.name} is not a regular file')
    with path.open('rb') as file:
      data = file.read(most + 1)
    if len(data) > most:
      raise DataError(f'its caption {name.name} has more than {most} bytes')
    return decode_text(data, f'its caption {name.name}')
  except OSError as error:
    raise DataError(f'its caption {name.name} cannot be read as UTF-8 text: {error}') from error


def decode_text(data: bytes, what: str) -> str:
  """Decodes UTF-8, or UTF-16 or UTF-32 with a byte order mark; DataError about `what` else."""
  try:
    text = data.decode(encoding_of(data))
  except UnicodeError as error:
    raise DataError(f'{what} cannot be read as UTF-8 text: {error}') from error
  except DataError as error:
    raise DataError(f'{what} {error}') from error
  if '\0' in text:
    raise DataError(f'{what} holds zero bytes, as UTF-16 does; save it as UTF-8')
  return text


def spoken(stem: str) -> str:
  """What the name of a file says: punctuation read as spaces, a trailing number dropped."""
  words = ''
  for letter in unicodedata.normalize('NFC', stem):
    of_word = unicodedata.category(letter)[0] == 'M' or letter in _JOINERS  # of the one before
    words += letter if letter.isalnum() or (of_word and words[-1:].strip()) else ' '
  return re.sub(r' \d+$', '', ' '.join(words.split()))


def _walk(root: pathlib.Path) -> tuple[list[pathlib.Path], list[OSError]]:
  """All files and links to folders below `root` but hidden ones, sorted, and what went wrong."""
  found = []
  errors = []
  for here, folders, files in os.walk(root, onerror=errors.append):
    folders[:] = [name for name in folders if not name.startswith('.')]
    links = [name for name in folders if os.path.islink(os.path.join(here, name))]
    found += [pathlib.Path(here, name) for name in links + files if not name.startswith('.')]
  return sorted(found), errors
