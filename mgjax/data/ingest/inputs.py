"""Iterators over clips with captions, the inputs of conversion into records.

Nothing is unpacked onto the disk, and no more than one clip is read before it is wanted.
"""

import abc
import copy
import dataclasses
import functools
import hashlib
import os
import pathlib
import stat
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

from mgjax.core.errors import DataError, StorageError
from mgjax.data.ingest.entries import MediaEntry, RejectedEntry, count_clips, why_uncaptioned
from mgjax.data.ingest.places import unreadable


@dataclasses.dataclass(frozen=True)
class Input:
  """A listed clip with its caption, not opened yet."""

  name: str  # in words that the user knows: where it lies in what was given
  caption: str
  size: int  # in bytes
  load: Callable[[], bytes] = dataclasses.field(repr=False)
  start: float | None = None  # the second from which on it counts
  path: pathlib.Path | None = None  # of a file that holds it alone


class Inputs(abc.ABC):
  """Inputs in a fixed order, which `identity`, plain JSON values, tells from others.

  An entry that cannot be used is a `RejectedEntry` among them.
  """

  identity: dict[str, object]

  @property
  def uncaptioned(self) -> list[RejectedEntry]:
    """Inputs whose caption is only the file name, or that are rejected for that, with reasons."""
    return []

  @property
  def clips(self) -> int:
    """How many there are, without what is no clip, such as a list."""
    return len(self)

  @property
  def rejected(self) -> list[RejectedEntry]:
    """Inputs known to be unusable before reading."""
    return []

  @abc.abstractmethod
  def __len__(self) -> int:
    """How many there are, rejected ones too."""

  @abc.abstractmethod
  def between(self, first: int, last: int) -> Iterator[Input | RejectedEntry]:
    """Yields the inputs first, first + 1, ..., last - 1."""

  def part(self, first: int, last: int) -> 'Inputs':
    """Returns the inputs from `first` to `last` as inputs that pickle: places, never clips."""
    return _Part(self, first, last)

  def __getitem__(self, index: int) -> Input | RejectedEntry:
    if not 0 <= index < len(self):
      raise IndexError(f'input {index} of {len(self)}')
    return next(self.between(index, index + 1))


class _Part(Inputs):
  def __init__(self, inputs: Inputs, first: int, last: int):
    self._whole, self._first, self._last = inputs, first, last
    self.identity = {'part': [first, last], **inputs.identity}

  def __len__(self) -> int:
    return self._last - self._first

  def between(self, first: int, last: int) -> Iterator[Input | RejectedEntry]:
    return self._whole.between(self._first + first, self._first + last)


class ListedInputs(Inputs):
  """Inputs that are listed beforehand; each is looked at when it is wanted."""

  def __init__(self, entries: Sequence[Any], layout: str):
    self._entries = entries
    self.identity = {'layout': layout, 'names': digest(entry.name for entry in entries)}

  @property
  def uncaptioned(self) -> list[RejectedEntry]:
    reasons = ((entry.name, why_uncaptioned(entry)) for entry in self._entries)
    return [RejectedEntry(name, reason) for name, reason in reasons if reason]

  @property
  def clips(self) -> int:
    return count_clips(self._entries)

  @property
  def rejected(self) -> list[RejectedEntry]:
    return [entry for entry in self._entries if isinstance(entry, RejectedEntry)]

  def __len__(self) -> int:
    return len(self._entries)

  def part(self, first: int, last: int) -> 'ListedInputs':
    some = copy.copy(self)
    some._entries = self._entries[first:last]
    return some

  def between(self, first: int, last: int) -> Iterator[Input | RejectedEntry]:
    for entry in self._entries[first:last]:
      try:
        yield entry if isinstance(entry, RejectedEntry) else self.look(entry)
      except StorageError:
        raise
      except DataError as error:
        yield RejectedEntry(entry.name, str(error))

  @abc.abstractmethod
  def look(self, entry: object) -> Input:
    """Makes the input of an entry; a DataError says why it cannot be used."""


class FileInputs(ListedInputs):
  """The files that `entries.list_entries` lists."""

  def __init__(self, root: pathlib.Path, entries: list[MediaEntry | RejectedEntry]):
    self._root = root
    super().__init__(entries, 'files')

  def look(self, entry: MediaEntry) -> Input:
    """Reads the size of a file without opening it."""
    if entry.extra:
      raise DataError(
        "is a pair, which records of clips do not hold; train on the manifest, data.kind = 'clips'"
      )
    try:
      status = entry.path.stat()
    except OSError as error:
      if not os.path.exists(self._root):
        raise StorageError(f'{self._root} is gone; is its disk still there?') from error
      if isinstance(error, FileNotFoundError | NotADirectoryError):
        raise DataError('there is no such file') from error
      raise unreadable(error, self._root) from error
    if not stat.S_ISREG(status.st_mode):  # opening a pipe or a device could wait for ever
      raise DataError('is not a regular file')
    load = functools.partial(read_part, entry.path, 0, status.st_size)
    return Input(entry.name, entry.caption, status.st_size, load, entry.start, entry.path)


def digest(names: Iterable[str]) -> str:
  """Names a list of names."""
  state = hashlib.blake2b(digest_size=16)
  for name in names:
    state.update(name.encode('utf-8', 'surrogateescape') + b'\0')
  return state.hexdigest()


def read_part(path: pathlib.Path, offset: int, size: int) -> bytes:
  """Reads `size` bytes from `offset` on; DataError if they are not there or may not be read.
  Raises StorageError if what the file lies on does not answer.
  """
  try:
    with path.open('rb') as file:
      file.seek(offset)
      data = file.read(size)
  except PermissionError as error:
    raise DataError('may not be read by this user') from error
  except OSError as error:
    raise StorageError(f'{path} cannot be read any more: {error.strerror}') from error
  if len(data) != size:
    raise DataError(f'is cut off: {size} bytes from {offset} on are not all there')
  return data
