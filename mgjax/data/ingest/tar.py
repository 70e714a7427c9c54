"""Reads clips from WebDataset tars in place: members `key.mp4` with `key.txt` or `key.json`.

`tarfile` reads the headers. No link is followed, nothing is unpacked, no size is taken on
trust. A damaged tar gives what comes before the damage.
"""

import dataclasses
import functools
import json
import os
import pathlib
import tarfile
from collections.abc import Callable, Iterator, Sequence
from typing import BinaryIO

from mgjax.core.errors import DataError
from mgjax.core.files import BEGIN, impostor
from mgjax.data.ingest.columns import caption_column, first_of_several, shown_names
from mgjax.data.ingest.entries import (
  NO_CAPTION,
  PLAIN,
  TEXTS,
  VIDEO,
  Captions,
  RejectedEntry,
  clean_caption,
  decode_text,
)
from mgjax.data.ingest.inputs import Input, ListedInputs, read_part

_NAME_LETTERS = 65_536
_HEADER_BYTES = 1 << 20  # of a header with its names
_CAPTION_BYTES = 1 << 20


@dataclasses.dataclass(frozen=True)
class Member:
  """A file in a tar; with a `problem` it must not be read."""

  name: str
  offset: int
  size: int
  problem: str = ''


@dataclasses.dataclass(frozen=True)
class _Sample:
  tar: pathlib.Path
  name: str
  media: Member
  caption: Member


class TarInputs(ListedInputs):
  """The samples of tars: an input for each key, in the order of the tars."""

  def __init__(
    self,
    tars: list[pathlib.Path],
    progress: Callable[[int, int], None] = lambda done, total: None,
    captions: Captions = PLAIN,
    caption: str = '',
  ):
    """Reads only the headers of all tars.

    `captions` are of key.json; with columns of its own, or a field `caption` that is asked for, it
    comes before key.txt.
    """
    samples: list[_Sample | RejectedEntry] = []
    self._captions, self._field = captions, caption
    texts = [suffix[1:] for suffix in TEXTS]
    kinds = ['json', *texts] if captions.columns or caption else [*texts, 'json']
    for done, tar in enumerate(tars, 1):
      samples += _samples(tar, kinds)
      progress(done, len(tars))
    super().__init__(samples, 'tar')

  def look(self, entry: _Sample) -> Input:
    load = functools.partial(read_part, entry.tar, entry.media.offset, entry.media.size)
    return Input(entry.name, _caption(entry, self._captions, self._field), entry.media.size, load)


def list_members(path: pathlib.Path) -> Iterator[Member]:
  """Lists the files in a tar (ustar, GNU or PAX); folders are left out.

  What follows a damaged place cannot be found: the last member then says so.
  """
  try:
    if not path.is_file():  # opening a pipe could wait for ever
      yield Member('', 0, 0, 'is not a regular file, or is not there')
      return
    with path.open('rb') as file:
      yield from _members(file, os.path.getsize(path))
  except OSError as error:
    yield Member('', 0, 0, f'cannot be read: {error.strerror}')


def _members(file: BinaryIO, length: int) -> Iterator[Member]:
  if not length:
    yield Member('', 0, 0, 'is empty')
    return
  end = 0  # of what was read, where the next header begins
  try:
    tar = tarfile.TarFile(fileobj=_Headers(file), encoding='utf-8', errors='replace')
    while (member := tar.next()) is not None:
      tar.members.clear()  # which it would keep
      problem = _problem(member)
      is_complete = (tar.offset if problem else member.offset_data + member.size) <= length
      if not member.isdir():
        problem = problem or ('' if is_complete else 'is cut off')
        yield Member(member.name[:_NAME_LETTERS], member.offset_data, member.size, problem)
      if not is_complete or tar.offset <= end:  # of a size below 0
        return
      end = tar.offset
  # A header may hold anything, and `tarfile` hands on what its parts make of that.
  except (tarfile.TarError, ValueError, ArithmeticError, LookupError, RecursionError):
    pass
  file.seek(end)
  header = file.read(tarfile.BLOCKSIZE)
  file.seek(0)
  mismatch = '' if end else impostor(file.read(BEGIN), 'a tar')
  if mismatch and 'a tar archive' not in mismatch:
    yield Member('', 0, 0, mismatch)
  elif any(header):
    yield Member('', end, 0, f'is damaged at byte {end}, or cut off there')
  elif len(header) < tarfile.BLOCKSIZE:  # which `tarfile` takes for an end like any other
    yield Member('', end, 0, 'is cut off, it has no mark of its end')


class _Headers:
  """A tar as `tarfile` reads its headers: none may be as long as it says it is."""

  def __init__(self, file: BinaryIO):
    self.seek = file.seek
    self.tell = file.tell
    self._file = file

  def read(self, size: int) -> bytes:
    if not 0 <= size <= _HEADER_BYTES:
      raise tarfile.ReadError(f'a header of {size} bytes')
    return self._file.read(size)


def _problem(member: tarfile.TarInfo) -> str:
  """Returns why a member must not be read, '' if it may."""
  if len(member.name) > _NAME_LETTERS:
    return f'has a name of {len(member.name)} letters'
  if member.issparse() or any(name.startswith('GNU.sparse') for name in member.pax_headers):
    return 'is a sparse file, whose size on the disk says nothing'
  if member.issym() or member.islnk():
    return 'is a link'
  if member.isdev():
    return 'is a pipe' if member.isfifo() else 'is a device'
  if member.size < 0 or member.type not in tarfile.SUPPORTED_TYPES:
    return 'is of an unknown kind'
  return ''


def _samples(tar: pathlib.Path, kinds: Sequence[str]) -> Iterator[_Sample | RejectedEntry]:
  keys: dict[str, dict[str, Member]] = {}
  for member in list_members(tar):
    label = f'{tar.name}/{member.name}' if member.name else tar.name
    folder, _, base = member.name.rpartition('/')
    if base.startswith('.') and not member.problem:
      continue
    problem = member.problem or _path_problem(member.name)
    if problem:
      yield RejectedEntry(label, problem)
      continue
    stem, _, ends = base.partition('.')
    parts = keys.setdefault(f'{folder}/{stem}'.lstrip('/'), {})
    if ends.lower() in parts:
      yield RejectedEntry(label, 'comes twice in its tar')
    else:
      parts[ends.lower()] = member
  for key, parts in keys.items():
    yield _sample(tar, key, parts, kinds)


def _path_problem(name: str) -> str:
  path = pathlib.PurePosixPath(name)
  if path.is_absolute() or '..' in path.parts or '\0' in name:
    return 'its path is absolute or leads upwards (..)'
  return ''


def _sample(
  tar: pathlib.Path, key: str, parts: dict[str, Member], kinds: Sequence[str]
) -> _Sample | RejectedEntry:
  def ending(suffix: str) -> list[Member]:
    return [m for ends, m in parts.items() if ends == suffix or ends.endswith('.' + suffix)]

  media = [member for suffix in VIDEO.suffixes for member in ending(suffix[1:])]
  captions = [member for kind in kinds for member in ending(kind)]
  if not media:
    only = ', '.join(sorted(parts))[:100]
    return RejectedEntry(f'{tar.name}/{key}', f'has no video, only {only}', False)
  name = f'{tar.name}/{media[0].name}'
  if not captions:
    return RejectedEntry(name, f'{NO_CAPTION}: {key}.txt or {key}.json is expected')
  return _Sample(tar, name, media[0], captions[0])


def _caption(sample: _Sample, captions: Captions, column_name: str) -> str:
  member = sample.caption
  if member.size > _CAPTION_BYTES:
    raise DataError(f'its caption {member.name} has {member.size} bytes')
  data = read_part(sample.tar, member.offset, member.size)
  text = decode_text(data, f'its caption {member.name}')
  if not member.name.lower().endswith('.json'):
    return clean_caption(text)
  try:
    fields = json.loads(text)
    column = caption_column(tuple(fields), column_name)
    caption = None if column is None else first_of_several(fields[column])
  except (ValueError, TypeError, RecursionError) as error:
    raise DataError(f'its caption {member.name} cannot be read: {error!s:.200}') from error
  if not isinstance(caption, str):
    raise DataError(f'{NO_CAPTION} in {member.name} among its fields: {shown_names(fields)}')
  return clean_caption(captions.write({**fields, 'caption': caption}))
