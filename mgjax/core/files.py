"""Atomic writing of small files: a reader sees the old content or the new, never a part.

`impostor` recognises files of another kind than expected: a failed download, an archive.
"""

import codecs
import contextlib
import json
import logging
import os
import pathlib
import re
import secrets
import stat
import tempfile
from collections.abc import Callable, Iterable, Iterator
from typing import Any, TypeVar

from mgjax.core.configuration.keys import JSON
from mgjax.core.errors import ConfigError, MgjaxError, first_line

_T = TypeVar('_T')

_LARGEST = 2**28  # bytes of a file of text
# How a file begins -> what it is, and what to do.
_OTHERS = {
  rb'(?i)\s*<(!doctype|html|head|body)': (
    'a web page (HTML)',
    'the download failed: try it again',
  ),
  rb'\s*version https://git-lfs': (
    'a pointer of Git LFS',
    'get the file itself by `git lfs pull`',
  ),
  rb'\s*(/annex/objects/|\S*\.git/annex/objects/)': (
    'a pointer of git-annex',
    'get the file itself by `git annex get`',
  ),
  rb'#EXTM3U|ffconcat': ('a list of other files', 'give those files themselves'),
  rb'PK(\x03\x04|\x05\x06)': ('a zip archive', 'unpack it'),
  rb'\x1f\x8b': ('a gzip archive', 'unpack it'),
  rb'Rar!\x1a\x07': ('a rar archive', 'unpack it'),
  rb"7z\xbc\xaf'\x1c": ('a 7z archive', 'unpack it'),
  rb'\xfd7zXZ': ('an xz archive', 'unpack it'),
  rb'BZh\d': ('a bzip2 archive', 'unpack it'),
  rb'\x28\xb5\x2f\xfd': ('a zstd archive', 'unpack it'),
  rb'.{257}ustar': ('a tar archive', 'unpack it'),
  rb'%PDF-': ('a PDF', 'give the file itself'),
}
BEGIN = 4096  # leading bytes that identify the kind of a file
_log = logging.getLogger(__name__)


@contextlib.contextmanager
def replaced(path: str | os.PathLike[str], *, private: bool = False) -> Iterator[pathlib.Path]:
  """Yields a temporary file beside `path`, which replaces `path` on success and is else deleted.

  The folder is created if it is missing. Files and folders get the user's default modes; `private`
  ones are for this user alone (600, and 700 for a new folder).
  """
  path = pathlib.Path(path)
  with _beside(path, private) as (temporary, mode):
    yield temporary
    os.chmod(temporary, mode)  # the writer may have put another file in its place
    synchronise(temporary)
    os.replace(temporary, path)
  synchronise(path.parent)


def create(path: str | os.PathLike[str], data: bytes) -> bool:
  """Writes `data` to `path` if nothing is there, and returns whether it did.

  If several processes write at once, the first one wins. Readers see the complete file or none.
  """
  path = pathlib.Path(path)
  with _beside(path) as (temporary, _):
    temporary.write_bytes(data)
    synchronise(temporary)
    try:
      os.link(temporary, path)
    except FileExistsError:
      return False
    except OSError:  # a file system without hard links
      if path.exists():
        return False
      os.replace(temporary, path)
  synchronise(path.parent)
  return True


def synchronise(path: str | os.PathLike[str]) -> None:
  """Returns once a file, or the entries of a folder, would survive a loss of power."""
  handle = os.open(path, os.O_RDONLY)
  try:
    os.fsync(handle)
  except OSError:
    if not os.path.isdir(path):  # not every file system can synchronise folders
      raise
  finally:
    os.close(handle)


@contextlib.contextmanager
def _beside(path: pathlib.Path, private: bool = False) -> Iterator[tuple[pathlib.Path, int]]:
  """Yields an empty file in the folder of `path` and its mode; deletes the file after the block."""
  path.parent.mkdir(mode=0o700 if private else 0o777, parents=True, exist_ok=True)
  temporary, mode = new_file(path.parent, f'.{path.name}.', private=private)
  try:
    yield temporary, mode
  finally:
    temporary.unlink(missing_ok=True)


def new_file(
  folder: pathlib.Path, prefix: str, suffix: str = '', *, private: bool = False
) -> tuple[pathlib.Path, int]:
  """Creates an empty file with an unused name; returns its path and mode.

  Unlike files of `tempfile.mkstemp` it has the mode that the user's umask gives. The kernel applies
  the umask, because reading it from Python would change it for all threads for a moment.
  """
  while True:
    path = folder / f'{prefix}{secrets.token_hex(4)}{suffix}'
    with contextlib.suppress(FileExistsError):
      handle = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600 if private else 0o666)
      try:
        return path, stat.S_IMODE(os.fstat(handle).st_mode)
      finally:
        os.close(handle)


def check_places(out: pathlib.Path, paths: Iterable[pathlib.Path], video: str) -> None:
  """Creates the folder of files that will be made from a video, and checks that it is writable.

  Raises ConfigError if one of `paths`, all in the folder of `out`, cannot be written or is the
  video itself.
  """
  try:
    for path in paths:
      if path.is_dir():
        raise ConfigError(f'--out={out}: {path} is a folder; give another name')
      if path.exists() and path.samefile(video):
        raise ConfigError(f'--out={out}: would write over --video={video}; give another name')
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile(dir=out.parent, prefix=f'.{out.stem}_sheet.png.'):
      pass  # fail now, not after hours of work
  except OSError as error:
    raise ConfigError(
      f'--out={out}: cannot be written ({error.strerror}); give another place'
    ) from error


def write_bytes(path: str | os.PathLike[str], data: bytes, *, private: bool = False) -> None:
  """Writes `data` to `path` so that a reader sees the old file or the new one, never a part.

  `private` is as in `replaced`.
  """
  with replaced(path, private=private) as temporary:
    temporary.write_bytes(data)


def write_json(path: str | os.PathLike[str], value: object, *, private: bool = False) -> None:
  """Writes `value` as indented JSON, atomically; `private` is as in `replaced`."""
  write_bytes(path, (json.dumps(value, indent=2) + '\n').encode(), private=private)


def read_json(
  path: str | os.PathLike[str],
  kind: type = dict,
  *,
  error: type[MgjaxError] = ConfigError,
  mend: str = 'delete it, or put back a whole copy',
) -> Any:
  """Reads a JSON file whose value has the type `kind`.

  Raises `error` if the file is missing or damaged, or holds another type. The message names the
  file and ends with `mend`, which says what to do.
  """
  data = read_regular(path, error=error, mend=mend)
  return parse_json(data, repr(os.fspath(path)), kind, error=error, mend=mend)


def read_regular(
  path: str | os.PathLike[str], *, error: type[MgjaxError] = ConfigError, mend: str
) -> bytes:
  """Reads a regular file of at most 256 MiB.

  Raises `error` if it is missing, larger, or a pipe or device, which might never end.
  """
  name = repr(os.fspath(path))
  try:
    status = os.stat(path)
    if not stat.S_ISREG(status.st_mode):
      raise error(f'{name} cannot be read: it is no regular file; {mend}')
    if status.st_size > _LARGEST:
      raise error(f'{name} has {status.st_size:,} bytes, expected {_LARGEST:,} at most; {mend}')
    return pathlib.Path(path).read_bytes()
  except FileNotFoundError as missing:
    raise error(f'{name} cannot be read: {missing.strerror}; {mend}') from None


def parse_json(
  data: bytes | str, name: str, kind: type = dict, *, error: type[MgjaxError], mend: str
) -> Any:
  """Parses JSON of the type `kind`. Raises `error` otherwise; `name` names the source for it."""
  try:
    value = _loads(data)
  except RecursionError:
    raise error(f'{name} is no readable JSON: it is nested too deep; {mend}') from None
  except ValueError as reason:  # of UTF-8 too, and of numbers with thousands of digits
    if isinstance(data, bytes) and (actual := impostor(data[:BEGIN], 'JSON')):
      raise error(f'{name} {actual}') from None
    raise error(f'{name} is no readable JSON: {first_line(reason)}; {mend}') from None
  if not isinstance(value, kind):
    raise error(f'{name} holds {type(value).__name__}, expected {kind.__name__}; {mend}')
  return value


def read_optional_json(
  path: str | os.PathLike[str], check: Callable[[Any], bool], kind: type = dict
) -> Any:
  """Reads a JSON file; None if it is missing, damaged or fails `check`, which is logged once."""
  try:
    return _checked(read_json(path, kind), check) if os.path.exists(path) else None
  except (MgjaxError, *WRONG) as reason:
    _warn_once(path, f'is damaged and counts for nothing: {first_line(reason)}')
    return None


def read_json_lines(
  path: str | os.PathLike[str], parse: Callable[[Any], object]
) -> Iterator[tuple[Any, bytes]]:
  """Yields `parse(value)` of the JSON of each complete line, and the line; logs damaged lines.

  A line is damaged if it is no JSON or `parse` raises one of `WRONG`. A crash may leave a last line
  without an end, which is skipped silently. A missing file has no lines.
  """
  path = pathlib.Path(path)
  damaged = []
  if not path.exists():
    return
  with path.open('rb') as file:
    for number, line in enumerate(file, 1):
      try:
        value = parse(_loads(line))
      except WRONG:
        if line.endswith(b'\n') and line != b'\n':
          damaged.append(number)
        continue
      yield value, line
  if damaged:
    _warn_once(path, f'has {len(damaged)} damaged lines (line {damaged[0]}), which are left out')


def unique_fields(pairs: list[tuple[str, object]]) -> JSON:
  """Makes a dictionary of a JSON object. Raises ValueError if a field occurs twice."""
  fields = dict(pairs)
  if len(fields) != len(pairs):
    raise ValueError('an object names a field twice')
  return fields


def _loads(data: bytes | str) -> Any:
  value = json.loads(data, object_pairs_hook=unique_fields)
  has_escapes = '\\u' in data if isinstance(data, str) else b'\\u' in data
  if has_escapes:  # lone surrogates cannot be written
    json.dumps(value, ensure_ascii=False).encode()
  return value


# What damaged JSON may raise while it is read or used.
WRONG = (ValueError, TypeError, KeyError, AttributeError, IndexError, OverflowError, RecursionError)


def _checked(value: _T, check: Callable[[_T], bool]) -> _T:
  if not check(value):
    raise ValueError('it does not hold what is expected')
  return value


def _warn_once(path: str | os.PathLike[str], problem: str) -> None:
  warning = (os.fspath(path), problem)
  if warning not in _logged:
    _logged.add(warning)
    _log.warning('%r %s', *warning)


_logged: set[tuple[str, str]] = set()


def end_line(path: str | os.PathLike[str]) -> None:
  """Appends a newline to a file whose last line was cut short by a crash."""
  path = pathlib.Path(path)
  if path.exists() and path.stat().st_size:
    with path.open('rb+') as file:
      file.seek(-1, os.SEEK_END)
      if file.read(1) != b'\n':
        file.write(b'\n')


def append_json_line(path: str | os.PathLike[str], value: object) -> None:
  """Appends a line of JSON; a crash can cut the last line only."""
  path = pathlib.Path(path)
  path.parent.mkdir(parents=True, exist_ok=True)
  try:
    with path.open('a') as file:
      file.write(json.dumps(value) + '\n')
  except OSError as error:  # a full disk's error does not name the file
    error.filename = error.filename or os.fspath(path)
    raise


def impostor(begin: bytes, expected: str) -> str:
  """Describes a file that begins with these bytes and is not `expected`; '' if it is unknown."""
  begin = begin.removeprefix(codecs.BOM_UTF8)
  for start, (kind, mend) in _OTHERS.items():
    if re.match(start, begin, re.S):
      return f'is {kind}, not {expected}; {mend}'
  return ''


def is_text(begin: bytes) -> bool:
  """Returns whether a file that begins with these bytes is text."""
  wide = begin[:2] in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
  decoder = codecs.getincrementaldecoder('utf-16' if wide else 'utf-8-sig')()
  try:
    text = decoder.decode(begin)  # the last character may be cut
  except UnicodeDecodeError:
    return False
  return bool(text) and all(letter.isprintable() or letter.isspace() for letter in text)
