"""Lists the entries of a folder or a manifest of clips or audio, without opening them.

A folder, with the folders inside it: each video or picture, or each file with sound, is an entry.
Its caption is, wherever a tool leaves it:

- the text of the file of the same name that ends in .txt, .caption or .cap (`clip.mp4`, `clip.txt`
  or `clip.mp4.txt`), or a field of such a .json. It may lie in a folder of captions beside that of
  the clips (`videos/clip.mp4`, `labels/clip.txt`);
- that of a list in the folder that names the clip: a manifest, such as `metadata.jsonl`, or two
  files with as many lines, such as `videos.txt` and `prompts.txt`;
- without any the name of the file, punctuation read as spaces and a trailing number dropped:
  `red_ball-bounces_012.mp4` says 'red ball bounces'. Such an entry says why in `uncaptioned`.

Two files that give a clip captions that differ reject it; each row of a list that names it is an
entry. Names that begin with a dot are left alone.

A manifest, .csv or .tsv with a header, .json, .jsonl or .parquet: columns `video` or `sound` (a
path relative to the manifest), `caption`, or what else `columns.py` reads, and, if wanted, `start`
in seconds. `Captions` makes more of other columns. A video with a `source_video`, a path too, is a
pair: what an edit, the caption, makes of that one; its `task` may say which kind of edit.
"""

import collections
import dataclasses
import functools
import math
import os
import pathlib
import re
import reprlib
import stat
import unicodedata
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from mgjax.core.configuration.keys import Fields
from mgjax.core.errors import DataError, StorageError, printable
from mgjax.data.ingest.columns import caption_column, file_column, shown_names
from mgjax.data.ingest.manifest import (
  MANIFEST_SUFFIXES,
  Columns,
  encoding_of,
  is_unicode,
  manifest_rows,
)
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


VIDEO = Medium('video', (*_MOVIES, '.gif', '.png', '.jpg', '.jpeg', '.webp', '.apng'))
SOUND = Medium(
  'sound', ('.wav', '.flac', '.mp3', '.ogg', '.oga', '.opus', '.aif', '.aiff', '.m4a', *_MOVIES)
)


def plain_caption(row: Fields) -> object:
  """Returns the caption of a row as it is."""
  return row.get('caption')


class Captions(NamedTuple):
  """How the fields of a row, in a manifest or the json of a tar, become its caption.

  `columns` are read beside `caption`, where they are there. `write` maps fields to the caption,
  None where there is none; a DataError says what is wrong.
  """

  columns: tuple[str, ...] = ()
  write: Callable[[Fields], object] = plain_caption


PLAIN = Captions()


@dataclasses.dataclass(frozen=True)
class MediaEntry:
  """A listed file with its caption, not opened yet."""

  name: str  # as the user wrote it
  path: pathlib.Path
  caption: str
  start: float | None = None
  extra: Mapping[str, str] = dataclasses.field(default_factory=dict)  # of a pair, see the file
  uncaptioned: str = ''  # why the caption is the file's name, if it is


@dataclasses.dataclass(frozen=True)
class RejectedEntry:
  """An entry that cannot be used, and why."""

  name: str
  reason: str
  is_clip: bool = dataclasses.field(default=True, compare=False)  # else it was never meant to be


class _Uncaptioned(DataError):
  """There is no caption, or nothing is left of it."""


def list_entries(
  path: pathlib.Path,
  report: str | os.PathLike[str] | None = None,
  medium: Medium = VIDEO,
  progress: Callable[[int, int], None] = lambda done, total: None,
  captions: Captions = PLAIN,
  media_column: str = '',
  caption_column: str = '',
) -> list[MediaEntry | RejectedEntry]:
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
  if path.suffix.lower() in MANIFEST_SUFFIXES and path.is_file():
    places = Places(path.parent, medium.suffixes)
    return [entry for _, entry in lists.entries(places, lists.rows(path))]
  kinds = f'{", ".join(MANIFEST_SUFFIXES[:-1])} or {MANIFEST_SUFFIXES[-1]}'
  what = archived(path) or f'is neither a folder nor a {kinds}'
  what = what if path.exists() else 'does not exist'
  raise DataError(f'{path} {what}; give a folder of clips with {medium.wanted}')


def archived(path: pathlib.Path) -> str:
  """Says what to do with a file that is named as an archive; '' of others, and of a .tar."""
  kind = re.search(r'\.(tar\.\w+|tgz|tbz2?|txz|gz|zst|zip|7z|rar)$', path.name.lower())
  return (
    f'is an archive ({kind[0]}), which is not read; unpack it, or make it a .tar' if kind else ''
  )


def count_clips(entries: Iterable[object]) -> int:
  """Returns how many entries there are, without what is no clip, such as a list."""
  return sum(getattr(entry, 'is_clip', True) for entry in entries)


def without_caption(lacking: Sequence[Any], count: int) -> str:
  """Says how many of `count` clips have no caption, and what the first of them is called."""
  first = f', the first is {printable(lacking[0].name)}' if lacking else ''
  return f'{len(lacking)} of {count} clips have no caption{first}'


def why_uncaptioned(entry: Any) -> str:
  """Returns why an entry's caption is only its name, or why it was rejected for that; else ''."""
  if isinstance(entry, RejectedEntry):
    return entry.reason if entry.reason.startswith((NO_CAPTION, _EMPTY)) else ''
  return getattr(entry, 'uncaptioned', '')


def clean_caption(caption: str) -> str:
  """Returns a caption in one line, without terminal control and text direction characters.
  Raises DataError if nothing is left of it, or it holds half a character.
  """
  if not is_unicode(caption):
    raise DataError('its caption holds half a character (a lone surrogate)')
  if not (caption.isascii() and caption.isprintable()):
    caption = unicodedata.normalize('NFC', caption)
    caption = re.sub('[\x00-\x1f\x7f-\x9f]+', ' ', caption)
    caption = re.sub('[\u202a-\u202e\u2066-\u2069]', '', caption)
  caption = ' '.join(caption.split())[:CAPTION_CHARACTERS]
  # Marks, and what controls, separates or joins letters, cannot be seen alone.
  if all(unicodedata.category(letter)[0] in 'CMZ' for letter in caption):
    raise _Uncaptioned(_EMPTY)
  return caption


def captioned(entry: MediaEntry, caption: str | None, file: str) -> MediaEntry:
  """Returns an entry with its caption or, without one, with the words of its file name."""
  try:
    if caption is None:
      raise _Uncaptioned(NO_CAPTION)
    return dataclasses.replace(entry, caption=clean_caption(caption))
  except _Uncaptioned as lacking:
    caption = clean_caption(spoken(pathlib.PurePath(file).stem))
    return dataclasses.replace(entry, caption=caption, uncaptioned=str(lacking))


def alike(reasons: Iterable[str]) -> dict[str, int]:
  """Counts reasons, commonest first; similar reasons count as the commonest of them.

  Alike are reasons that differ in numbers alone, and copies of whichever clips.
  """
  groups: dict[str, collections.Counter] = collections.defaultdict(collections.Counter)
  for reason, count in collections.Counter(reasons).items():
    groups[_COPY if reason.startswith(_COPY) else _NUMBER.sub('0', reason)][reason] += count
  counted = {group.most_common(1)[0][0]: group.total() for group in groups.values()}
  return dict(sorted(counted.items(), key=lambda pair: -pair[1]))


def commonest(rejected: Sequence[RejectedEntry]) -> str:
  """Formats the commonest reasons: ' (3 x ..., 2 x ...)'."""
  groups = list(alike(entry.reason for entry in rejected).items())[:3]
  summary = '; '.join(f'{count} x {printable(reason)}' for reason, count in groups)
  return f' ({summary})' if summary else ''


def list_rejected(
  rejected: Sequence[RejectedEntry], report: str | os.PathLike[str] | None = None
) -> list[str]:
  """Returns a line for each of the first entries, then how many more `report` lists."""
  lines = [f'  {printable(entry.name)}: {printable(entry.reason)}' for entry in rejected[:_LISTED]]
  if unlisted := rejected[_LISTED:]:
    hint = f': see {report}' if report else ''
    lines.append(f'  and {len(unlisted)} more{commonest(unlisted)}{hint}')
  return lines


class _Lists(NamedTuple):
  """How lists of clips are read."""

  medium: Medium
  captions: Captions
  columns: Columns
  progress: Callable[[int, int], None]

  def rows(self, path: pathlib.Path) -> Iterator[tuple[int, Mapping[str, Any] | DataError]]:
    """Reads the rows of a manifest."""
    optional = ('start', *_OF_PAIRS, *self.captions.columns)
    return manifest_rows(path, self.columns, optional, self.medium.suffixes, self.progress)

  def entries(
    self,
    places: Places,
    rows: Iterable[tuple[int, Fields | DataError]],
    below: str = '',
    of: str = '',
  ) -> Iterator[tuple[pathlib.Path | None, MediaEntry | RejectedEntry]]:
    """Yields the path of each row's file, None if unknown, and its entry.

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
        where, path = places.locate(file, below)
        entry = MediaEntry(name, path, '', _start(row.get('start')), _of_pair(row, places, below))
        caption = self.captions.write(row)
        if not isinstance(caption, str) and row.get('caption', ()) is not None:
          raise DataError(f'{NO_CAPTION} that is text among its fields: {shown_names(row)}')
        yield where, captioned(entry, caption, file)
      except StorageError:
        raise
      except DataError as error:
        label = name if len(name) <= _SHOWN else f'{name[:_SHOWN]}...'
        yield where, RejectedEntry(label.encode('utf-8', 'backslashreplace').decode(), str(error))


def _folder_entries(
  root: pathlib.Path, report: str | os.PathLike[str] | None, lists: _Lists
) -> Iterator[MediaEntry | RejectedEntry]:
  paths, links, unlisted = _walk(root)
  for error in unlisted:
    yield RejectedEntry(str(error.filename), f'cannot be listed: {error.strerror}', False)
  medium = lists.medium
  ignored = report and pathlib.Path(report).resolve()
  folder = _Folder(root, lists)
  folder.read_texts(paths)
  folder.read_lists([path for path in paths if path not in folder.used and path != ignored])
  for path in paths:
    name = str(path.relative_to(root))
    is_clip = path not in links and path.suffix.lower() in medium.suffixes
    try:
      if is_clip:
        yield from folder.entries(path)
      elif path in links:
        raise DataError('is a link to a folder, and those are not followed')
      elif path in folder.refused:
        raise DataError(folder.refused[path])
      elif path in folder.used:
        continue
      elif path.suffix.lower() in TEXTS:
        raise DataError(f'is a caption without a {medium.word} of the same name')
      elif not ignored or path.resolve() != ignored:
        ends = ', '.join(medium.suffixes)
        if problem := archived(path):
          raise DataError(problem)
        raise DataError(f'is not a {medium.word}: a name that ends in {ends} is expected')
    except StorageError:
      raise
    except DataError as error:
      yield RejectedEntry(name, str(error), is_clip)
    except OSError as error:
      yield RejectedEntry(name, str(unreadable(error, root)), is_clip)
  yield from folder.missing


class _Folder:
  """What the files in a folder say of its clips.

  Attributes:
    used: the files that say something.
    refused: lists that cannot be used, and why.
    missing: entries of lists whose file is not there.
  """

  def __init__(self, root: pathlib.Path, lists: _Lists):
    self.used: set[pathlib.Path] = set()
    self.refused: dict[pathlib.Path, str] = {}
    self.missing: list[MediaEntry | RejectedEntry] = []
    self._root, self._lists = root, lists
    self._places = Places(root, lists.medium.suffixes)
    # Name of a clip -> name of what names it -> its entries there.
    self._captions_of: dict[str, dict[str, list[MediaEntry | RejectedEntry]]] = {}
    self._folders: set[str] = set()  # that hold clips

  def entries(self, clip: pathlib.Path) -> Iterator[MediaEntry | RejectedEntry]:
    """Yields the entries of a clip: its own, or one for each list row that names it."""
    name = self._name(clip)
    by_list = self._captions_of.get(name, {})
    # A list without captions does not matter if another list has them.
    by_list = {
      of: rows for of, rows in by_list.items() if not all(map(why_uncaptioned, rows))
    } or by_list
    if len({tuple(map(_text_of, rows)) for rows in by_list.values()}) > 1:
      raise DataError(f'has captions that differ, in {" and in ".join(by_list)}; leave one of them')
    for number, entry in enumerate(next(iter(by_list.values()), []), 1):
      yield dataclasses.replace(entry, name=name if number == 1 else f'{name} ({number})')
    if not by_list:
      yield captioned(MediaEntry(name, self._places.find(name), ''), None, name)

  def read_texts(self, paths: Sequence[pathlib.Path]) -> None:
    """Reads files with the caption of one clip: of the same name, or in a folder of captions."""
    medium = self._lists.medium
    clips = []
    texts = []
    of = collections.defaultdict(list)
    for path in paths:
      stem, suffix = os.path.splitext(name := _composed(str(path)))
      if suffix.lower() in medium.suffixes:
        clips.append(path)
        self._folders.add(os.path.dirname(self._name(path)))
        of[stem].append(path)
        of[name].append(path)
      elif suffix.lower() in (*TEXTS, '.json'):
        texts.append((path, stem))
    alone = collections.defaultdict(list)
    for path, stem in texts:
      for clip in (owners := of.get(stem, [])):
        self._read_text(clip, path)
      if not owners and path.suffix.lower() in TEXTS:
        alone[self._without(path, _is_of_captions)].append(path)
    is_of_clips = functools.partial(file_column, word=medium.word)
    for clip in clips if alone else ():
      beside = alone.get(self._without(clip, is_of_clips), ())
      if len(beside) == 1:
        self._read_text(clip, beside[0])

  def _without(
    self, path: pathlib.Path, is_kind: Callable[[tuple[str]], object]
  ) -> tuple[str, ...]:
    """A path but for what says a kind in it: a/1 of a/videos/1.mp4 and a/labels/1.txt."""
    parts = os.path.splitext(_composed(self._name(path)))[0].split(os.sep)
    return tuple(part for part in parts if not is_kind((part.lower(),)))

  def _read_text(self, clip: pathlib.Path, path: pathlib.Path) -> None:
    """Reads the caption of a clip, if there is one in a .json."""
    name = self._name(clip)
    entry: MediaEntry | RejectedEntry
    try:
      caption = self._text(path, _CAPTION_BYTES)
      if path.suffix.lower() == '.json':
        caption = self._lists.columns.caption_of(caption)
        if caption is None:
          return
      entry = captioned(MediaEntry(name, self._places.find(name), ''), caption, name)
    except StorageError:
      raise
    except DataError as error:
      entry = RejectedEntry(name, str(error))
    self._captions_of.setdefault(name, {})[self._name(path)] = [entry]
    self.used.add(path)

  def read_lists(self, files: Sequence[pathlib.Path]) -> None:
    """Reads the files that are lists; DataError if one lacks a line for each clip."""
    texts: dict[pathlib.Path, list[str]] = {}
    folders = {path.parent for path in files if _may_hold_captions(path)}
    for path in files:
      try:
        if path.suffix.lower() in MANIFEST_SUFFIXES and path.is_file():
          self._places.find(self._name(path))
          self._read_list(path, self._lists.rows(path))
        elif path.suffix.lower() == '.txt' and path.parent in folders:
          text = self._text(path, _LIST_BYTES)
          texts[path] = text.removesuffix('\n').split('\n')  # which ends the last line
      except StorageError:
        raise
      except DataError as error:
        self.refused[path] = str(error).removeprefix(str(path)).lstrip(' :')
    medium = self._lists.medium
    for clips, lines in texts.items():
      names = '\n'.join(lines).rstrip().split('\n')
      if not all(name.strip().lower().endswith(medium.suffixes) for name in names):
        continue
      for captions, phrases in texts.items():
        if captions.parent == clips.parent and _may_hold_captions(captions):
          if len(phrases) < len(names) or any(line.strip() for line in phrases[len(names) :]):
            raise DataError(
              f'{captions} has {len(phrases)} lines and {clips.name} {len(names)}; expected a '
              'caption for each clip, a line each'
            )
          rows = ({medium.word: n, 'caption': c} for n, c in zip(names, phrases, strict=False))
          self._read_list(captions, enumerate(rows, 1))
          self.used.add(clips)

  def _read_list(self, path: pathlib.Path, rows: Iterable[tuple[int, Any]]) -> None:
    name = self._name(path)
    medium = self._lists.medium
    here = os.path.dirname(name)
    rows = list(rows)
    entries = list(self._lists.entries(self._places, rows, here, f'{name} '))
    if not any(map(_is_there, entries)):  # but perhaps below the folder of clips beside it
      below = [
        self._lists.entries(self._places, rows, folder, f'{name} ') for folder in self._of(here)
      ]
      resolved = [candidate for candidate in map(list, below) if any(map(_is_there, candidate))]
      entries = resolved[0] if len(resolved) == 1 else entries
    there = [*map(_is_there, entries)]
    if not any(there):
      first = entries[0][1] if entries else None
      if isinstance(first, RejectedEntry):
        self.refused[path] = f'names no {medium.word}: its first row {first.reason}'
      # A .json may be of something else.
      if isinstance(first, MediaEntry) and path.suffix.lower() == '.json':
        self.refused[path] = f'names no {medium.word} that is there; its first row is {first.name}'
      if path in self.refused or not isinstance(first, MediaEntry):
        return
    self.used.add(path)
    for (where, entry), is_there in zip(entries, there, strict=True):
      if is_there and where.suffix.lower() in medium.suffixes:
        clip = str(where.relative_to(self._places.top))
        self._captions_of.setdefault(clip, {}).setdefault(name, []).append(entry)
      else:
        self.missing.append(entry)

  def _of(self, folder: str) -> list[str]:
    """Returns the folders inside another one whose names say that they hold clips, as `videos`."""
    word = self._lists.medium.word
    return [
      name
      for name in sorted(self._folders)
      if os.path.dirname(name) == folder and file_column((os.path.basename(name).lower(),), word)
    ]

  def _name(self, path: pathlib.Path) -> str:
    return str(path).removeprefix(f'{self._root}{os.sep}')

  def _text(self, path: pathlib.Path, most: int) -> str:
    what = f'its caption {path.name}'
    try:
      located = self._places.find(self._name(path))
      status = located.stat()
      if not stat.S_ISREG(status.st_mode):  # opening a pipe or a device could wait for ever
        raise DataError(f'{what} is not a regular file')
      with open(located, 'rb') as file:
        data = file.read(min(status.st_size, most) + 1)
    except OSError as error:
      raise DataError(f'{what} cannot be read: {error.strerror}') from error
    if len(data) > most:
      raise DataError(f'{what} has more than {most} bytes')
    return decode_text(data, what)


def _is_there(located: tuple[pathlib.Path | None, Any]) -> bool:
  return located[0] is not None and located[0].is_file()


def _text_of(entry: MediaEntry | RejectedEntry) -> str:
  return entry.caption if isinstance(entry, MediaEntry) else entry.reason


def _may_hold_captions(path: pathlib.Path) -> bool:
  """Whether a file is called as a list with a caption a line."""
  return path.suffix.lower() == '.txt' and caption_column((path.stem,)) is not None


def _composed(name: str) -> str:
  return unicodedata.normalize('NFC', name)


def _is_of_captions(part: tuple[str]) -> bool:
  return caption_column(part) is not None or part[0] in _LABELS


def _of_pair(row: Fields, places: Places, below: str) -> dict[str, str]:
  source = row.get(SOURCE)
  if not source:
    return {}
  if not isinstance(source, str) or not is_unicode(source):
    raise DataError(f'{SOURCE} is {reprlib.repr(source)}, expected a path')
  return {
    SOURCE: os.fspath(places.locate(source.strip(), below)[1]),
    TASK: str(row.get(TASK) or ''),
  }


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


def _walk(root: pathlib.Path) -> tuple[list[pathlib.Path], set[pathlib.Path], list[OSError]]:
  """Returns the visible files and folder links below `root`, sorted, the links, and errors."""
  paths = []
  linked = set()
  errors = []
  for here, folders, files in os.walk(root, onerror=errors.append):
    folders[:] = [name for name in folders if not name.startswith('.')]
    links = [name for name in folders if os.path.islink(os.path.join(here, name))]
    linked.update(pathlib.Path(here, name) for name in links)
    paths += [pathlib.Path(here, name) for name in links + files if not name.startswith('.')]
  return sorted(paths), linked, errors
