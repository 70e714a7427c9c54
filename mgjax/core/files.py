"""Atomic writing of small files: a reader sees the old content or the new, never half.

`impostor` says what a file is that lies in place of another: a failed download, an archive.
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
from typing import Any

from mgjax.core.errors import ConfigError, MgjaxError, first_line

LARGEST = 2**28  # bytes of a file of text
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
BEGIN = 4096  # bytes that tell
_log = logging.getLogger(__name__)


@contextlib.contextmanager
def replaced(path: str | os.PathLike[str], *, private: bool = False) -> Iterator[pathlib.Path]:
  """Yields a file to write beside `path`, which then takes its place, or vanishes on an error.

  Their folder is made, if there is none. Files and folders have the modes of all that this user
  makes; `private` ones (600, and a folder that is made 700) are for this user alone.
  """
  path = pathlib.Path(path)
  with _beside(path, private) as (temporary, mode):
    yield temporary
    os.chmod(temporary, mode)  # what writes it may have put another file in its place
    synchronise(temporary)
    os.replace(temporary, path)
  synchronise(path.parent)


def create(path: str | os.PathLike[str], data: bytes) -> bool:
  """Writes `data` to `path` if nothing is there, and returns whether it did.

  Of several writers at once the first one wins. Others see the whole file or none.
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
  """Returns once a file, or the names in a folder, would outlive a loss of power."""
  handle = os.open(path, os.O_RDONLY)
  try:
    os.fsync(handle)
  except OSError:
    if not os.path.isdir(path):  # not every file system can do it for folders
      raise
  finally:
    os.close(handle)


@contextlib.contextmanager
def _beside(path: pathlib.Path, private: bool = False) -> Iterator[tuple[pathlib.Path, int]]:
  """Yields an empty file in the folder of `path`, gone after the block, and its mode."""
  path.parent.mkdir(mode=0o700 if private else 0o777, parents=True, exist_ok=True)
  temporary, mode = new_file(path.parent, f'.{path.name}.', private=private)
  try:
    yield temporary, mode
  finally:
    temporary.unlink(missing_ok=True)


def new_file(
  folder: pathlib.Path, prefix: str, suffix: str = '', *, private: bool = False
) -> tuple[pathlib.Path, int]:
  """Makes an empty file of a name that nothing has; returns its path and mode.

  Unlike those of tempfile.mkstemp it has the mode that the user's umask gives, which the kernel
  applies. To read a umask one has to set it, and for that moment it is that of all threads.
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
  """Makes the folder of files that will be made of a video, and tries whether it takes any.

  Raises ConfigError if one of `paths`, all in the folder of `out`, cannot be written, or only over
  the video.
  """
  try:
    for path in paths:
      if path.is_dir():
        raise ConfigError(f'--out={out}: {path} is a folder; give another name')
      if path.exists() and path.samefile(video):
        raise ConfigError(f'--out={out}: would write over --video={video}; give another name')
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile(dir=out.parent, prefix=f'.{out.stem}_sheet.png.'):
      pass  # hours of work shall not end at a folder that takes no file
  except OSError as error:
    raise ConfigError(
      f'--out={out}: cannot be written ({error.strerror}); give another place'
    ) from error


def write_bytes(path: str | os.PathLike[str], data: bytes, *, private: bool = False) -> None:
  """Writes `data` to `path` so that a reader sees the old file or the new one, never a part.

  `private` is as of `replaced`.
  """
  with replaced(path, private=private) as temporary:
    temporary.write_bytes(data)


def write_json(path: str | os.PathLike[str], value: Any, *, private: bool = False) -> None:
  """Writes `value` as indented JSON, atomically; `private` is as of `replaced`."""
  write_bytes(path, (json.dumps(value, indent=2) + '\n').encode(), private=private)


def read_json(
  path: str | os.PathLike[str],
  kind: type = dict,
  *,
  error: type[MgjaxError] = ConfigError,
  mend: str = 'delete it, or put back a whole copy',
) -> Any:
  """Reads a JSON file that holds a `kind`.

  Raises `error` if it is missing, damaged, or holds something else. The message names the file, and
  ends with `mend`, what is to be done.
  """
  data = read_regular(path, error=error, mend=mend)
  return parse_json(data, repr(os.fspath(path)), kind, error=error, mend=mend)


def read_regular(
  path: str | os.PathLike[str], *, error: type[MgjaxError] = ConfigError, mend: str
) -> bytes:
  """Reads a file of text that people and programs describe things in, of 256 MiB at most.

  Raises `error` if it is missing, larger, or a pipe or device, which could be read for ever.
  """
  name = repr(os.fspath(path))
  try:
    about = os.stat(path)
    if not stat.S_ISREG(about.st_mode):
      raise error(f'{name} cannot be read: it is no regular file; {mend}')
    if about.st_size > LARGEST:
      raise error(f'{name} has {about.st_size:,} bytes, expected {LARGEST:,} at most; {mend}')
    return pathlib.Path(path).read_bytes()
  except FileNotFoundError as missing:
    raise error(f'{name} cannot be read: {missing.strerror}; {mend}') from None


def parse_json(
  data: bytes | str, name: str, kind: type = dict, *, error: type[MgjaxError], mend: str
) -> Any:
  """Reads JSON that should be a `kind`; what `name` names is to blame if it is not."""
  try:
    value = _loads(data)
  except RecursionError:
    raise error(f'{name} is no readable JSON: it is nested too deep; {mend}') from None
  except ValueError as wrong:  # of UTF-8 too, and of numbers of thousands of digits
    if isinstance(data, bytes) and (found := impostor(data[:BEGIN], 'JSON')):
      raise error(f'{name} {found}') from None
    raise error(f'{name} is no readable JSON: {first_line(wrong)}; {mend}') from None
  if not isinstance(value, kind):
    raise error(f'{name} holds {type(value).__name__}, expected {kind.__name__}; {mend}')
  return value


def read_optional_json(
  path: str | os.PathLike[str], check: Callable[[Any], bool], kind: type = dict
) -> Any:
  """Reads a JSON file; None if it is missing, or (logged once) damaged or no good to `check`."""
  try:
    return _checked(read_json(path, kind), check) if os.path.exists(path) else None
  except (MgjaxError, *WRONG) as wrong:
    _tell_once(path, f'is damaged and counts for nothing: {first_line(wrong)}')
    return None


def read_json_lines(
  path: str | os.PathLike[str], parse: Callable[[Any], Any]
) -> Iterator[tuple[Any, bytes]]:
  """Yields what `parse` makes of the JSON of each whole line, and the line; logs damaged ones.

  What `parse` raises of `WRONG` is damage. A last line without an end was cut short by a crash, and
  is left out silently. A missing file has no lines.
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
        damaged += [number] * (line.endswith(b'\n') and line != b'\n')
        continue
      yield value, line
  if damaged:
    _tell_once(path, f'has {len(damaged)} damaged lines (line {damaged[0]}), which are left out')


def unique_fields(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
  """Makes the object of JSON; ValueError if it names a field twice, of which readers differ."""
  fields = dict(pairs)
  if len(fields) != len(pairs):
    raise ValueError('an object names a field twice')
  return fields


def _loads(data: bytes | str) -> Any:
  value = json.loads(data, object_pairs_hook=unique_fields)
  if ('\\u' if isinstance(data, str) else b'\\u') in data:  # halves of characters cannot be written
    json.dumps(value, ensure_ascii=False).encode()
  return value


# What damaged JSON may raise while it is read or used.
WRONG = (ValueError, TypeError, KeyError, AttributeError, IndexError, OverflowError, RecursionError)


def _checked(value: Any, check: Callable[[Any], bool]) -> Any:
  if not check(value):
    raise ValueError('it does not hold what is expected')
  return value


def _tell_once(path: str | os.PathLike[str], what: str) -> None:
  if (told := (os.fspath(path), what)) not in _told:
    _told.add(told)
    _log.warning('%r %s', *told)


_told: set[tuple[str, str]] = set()


def end_line(path: str | os.PathLike[str]) -> None:
  """Ends a line that was cut short, so that the next one stands by itself."""
  path = pathlib.Path(path)
  if path.exists() and path.stat().st_size:
    with path.open('rb+') as file:
      file.seek(-1, os.SEEK_END)
      if file.read(1) != b'\n':
        file.write(b'\n')


def append_json_line(path: str | os.PathLike[str], value: Any) -> None:
  """Appends one JSON line; a crash can only cut the last line, never an earlier one."""
  path = pathlib.Path(path)
  path.parent.mkdir(parents=True, exist_ok=True)
  try:
    with path.open('a') as file:
      file.write(json.dumps(value) + '\n')
  except OSError as error:  # of a full disk, which does not say whose file it is
    error.filename = error.filename or os.fspath(path)
    raise


def impostor(begin: bytes, expected: str) -> str:
  """Says what begins so in place of what is `expected`; '' where the bytes do not tell."""
  begin = begin.removeprefix(codecs.BOM_UTF8)
  for start, (kind, mend) in _OTHERS.items():
    if re.match(start, begin, re.S):
      return f'is {kind}, not {expected}; {mend}'
  return ''


def is_text(begin: bytes) -> bool:
  """Returns whether a file that begins so is one of text."""
  wide = begin[:2] in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
  decoder = codecs.getincrementaldecoder('utf-16' if wide else 'utf-8-sig')()
  try:
    text = decoder.decode(begin)  # its last letter may be cut
  except UnicodeDecodeError:
    return False
  return bool(text) and all(letter.isprintable() or letter.isspace() for letter in text)
