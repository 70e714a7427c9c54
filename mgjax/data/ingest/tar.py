"""Reads clips from WebDataset tars in place: members `key.mp4` with `key.txt` or `key.json`.

The headers of a tar are read by `list_members`, which follows no link, unpacks nothing and takes no
size on trust. A damaged tar gives what comes before the damage.
"""

import copy
import dataclasses
import functools
import json
import os
import pathlib
import re
from collections.abc import Callable, Iterator, Sequence
from typing import BinaryIO

from mgjax.core.errors import DataError, StorageError
from mgjax.data.ingest.entries import PLAIN, VIDEO, Captions, Rejected, clean_caption
from mgjax.data.ingest.inputs import Input, Inputs, digest, read_part

_BLOCK = 512
_NAME_BYTES = 65_536  # of a long name and of a header of PAX
_PAX = re.compile(rb'(\d{1,6}) ([^=]{1,200})=')  # the length of a field of PAX and its name
_CAPTION_BYTES = 1 << 20
_CAPTION_FIELDS = ('caption', 'text')
_STRANGE = {
  b'1': 'is a link', b'2': 'is a link', b'3': 'is a device', b'4': 'is a device',
  b'6': 'is a pipe', b'S': 'is a sparse file, whose size on the disk says nothing',
}  # fmt: skip


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


class TarInputs(Inputs):
  """The samples of tars: an input for each key, in the order of the tars."""

  def __init__(
    self,
    tars: list[pathlib.Path],
    progress: Callable[[int, int], None] = lambda done, total: None,
    captions: Captions = PLAIN,
  ):
    """Reads the headers of all tars, and nothing else.

    Args:
      tars: their paths.
      progress: is told how many are read.
      captions: of key.json; with columns of its own it comes before key.txt.
    """
    self._samples: list[_Sample | Rejected] = []
    self._captions, kinds = captions, ('json', 'txt') if captions.columns else ('txt', 'json')
    for done, tar in enumerate(tars, 1):
      self._samples += _samples(tar, kinds)
      progress(done, len(tars))
    names = digest(sample.name for sample in self._samples)
    self.identity = {'layout': 'tar', 'names': names}

  def __len__(self) -> int:
    return len(self._samples)

  def part(self, first: int, last: int) -> 'TarInputs':
    """Returns some of them."""
    some = copy.copy(self)
    some._samples = self._samples[first:last]
    return some

  def between(self, first: int, last: int) -> Iterator[Input | Rejected]:
    """Yields them; their captions are read now."""
    for sample in self._samples[first:last]:
      if isinstance(sample, Rejected):
        yield sample
        continue
      try:
        media = sample.media
        load = functools.partial(read_part, sample.tar, media.offset, media.size)
        yield Input(sample.name, _caption(sample, self._captions), media.size, load)
      except StorageError:
        raise
      except DataError as error:
        yield Rejected(sample.name, str(error))


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
  place, name, size, wrong = 0, None, None, ''
  while place + _BLOCK <= length:
    file.seek(place)
    header = file.read(_BLOCK)
    if not any(header):
      return
    kind = header[156:157]
    number = _number(header[124:136])
    if not _is_header(header) or number is None:
      compressed = not place and header.startswith((b'\x1f\x8b', b'BZh', b'\xfd7zXZ', b'\x28\xb5'))
      wrong = 'is compressed; unpack it first' if compressed else f'is damaged at byte {place}'
      yield Member('', place, 0, wrong)
      return
    stored = number if size is None or kind in b'xgLK' else size
    place += _BLOCK
    if place + stored > length:
      yield Member(name or _plain_name(header), place, stored, 'is cut off')
      return
    if kind in (b'L', b'x') and stored > _NAME_BYTES:
      wrong = f'has a name of {stored} bytes at byte {place}'
    elif kind == b'L':
      name = file.read(stored).rstrip(b'\0').decode('utf-8', 'replace')
    elif kind == b'x':
      fields = _pax(file.read(stored))
      name = fields.get('path', name)
      size = int(fields['size']) if re.fullmatch(r'[0-9]{1,18}', fields.get('size', '')) else None
      if any(field.startswith('GNU.sparse') for field in fields):
        wrong = _STRANGE[b'S']
    elif kind not in (b'g', b'K'):
      wrong = wrong or _STRANGE.get(kind, '')
      if not wrong and kind not in (b'0', b'\0', b'7', b'5'):
        wrong = 'is of an unknown kind'
      if kind != b'5':
        yield Member(name or _plain_name(header), place, stored, wrong)
      name, size, wrong = None, None, ''
    place += -(-stored // _BLOCK) * _BLOCK
  yield Member('', place, 0, 'is cut off, it has no mark of its end' if length else 'is empty')


def _is_header(header: bytes) -> bool:
  told = _number(header[148:156])
  return told == sum(header[:148]) + sum(header[156:]) + 8 * ord(' ')


def _number(field: bytes) -> int | None:
  """A number of a header, in octal digits or, if it is large, in binary; None if it is neither."""
  if field[0] == 0x80:
    return int.from_bytes(field[1:], 'big')
  digits = field.strip(b' \0')
  return int(digits or b'0', 8) if re.fullmatch(rb'[0-7]*', digits) else None


def _plain_name(header: bytes) -> str:
  name, prefix = header[:100].split(b'\0')[0], header[345:500].split(b'\0')[0]
  if prefix and header[257:263] == b'ustar\0':  # GNU keeps times there
    name = prefix + b'/' + name
  return name.decode('utf-8', 'replace')


def _pax(text: bytes) -> dict[str, str]:
  fields, place = {}, 0
  while match := _PAX.match(text, place):
    value = text[match.end() : place + int(match[1])].removesuffix(b'\n')
    place += int(match[1])
    if place <= match.end():
      break
    fields[match[2].decode('utf-8', 'replace')] = value.decode('utf-8', 'replace')
  return fields


def _samples(tar: pathlib.Path, kinds: Sequence[str]) -> Iterator[_Sample | Rejected]:
  keys: dict[str, dict[str, Member]] = {}
  for member in list_members(tar):
    shown = f'{tar.name}/{member.name}' if member.name else tar.name
    folder, _, base = member.name.rpartition('/')
    if base.startswith('.') and not member.problem:
      continue
    problem = member.problem or _path_problem(member.name)
    if problem:
      yield Rejected(shown, problem)
      continue
    stem, _, ends = base.partition('.')
    parts = keys.setdefault(f'{folder}/{stem}'.lstrip('/'), {})
    if ends.lower() in parts:
      yield Rejected(shown, 'comes twice in its tar')
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
) -> _Sample | Rejected:
  def ending(suffix: str) -> list[Member]:
    return [m for ends, m in parts.items() if ends == suffix or ends.endswith('.' + suffix)]

  media = [member for suffix in VIDEO.suffixes for member in ending(suffix[1:])]
  captions = [member for kind in kinds for member in ending(kind)]
  if not media:
    return Rejected(f'{tar.name}/{key}', f'has no video, only {", ".join(sorted(parts))[:100]}')
  name = f'{tar.name}/{media[0].name}'
  if not captions:
    return Rejected(name, f'has no caption: {key}.txt or {key}.json is expected')
  return _Sample(tar, name, media[0], captions[0])


def _caption(sample: _Sample, captions: Captions) -> str:
  member = sample.caption
  if member.size > _CAPTION_BYTES:
    raise DataError(f'its caption {member.name} has {member.size} bytes')
  data = read_part(sample.tar, member.offset, member.size)
  try:
    text = data.decode('utf-8-sig')
    if member.name.lower().endswith('.json'):
      fields = json.loads(text)
      found = [fields[name] for name in _CAPTION_FIELDS if name in fields]
      if not found or not isinstance(found[0], str):
        raise DataError(f'{member.name} has no text named {" or ".join(_CAPTION_FIELDS)}')
      text = captions.write({**fields, 'caption': found[0]})
  except (ValueError, TypeError, RecursionError) as error:
    raise DataError(f'its caption {member.name} cannot be read: {error!s:.200}') from error
  return clean_caption(text)
