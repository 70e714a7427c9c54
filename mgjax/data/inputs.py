"""What is converted into records: clips with captions, one after another, wherever they lie.

Nothing is unpacked onto the disk, and no more than one clip is read before it is wanted.
"""

import abc
import dataclasses
import functools
import hashlib
import pathlib
from collections.abc import Callable, Iterable, Iterator

from mgjax.core.errors import DataError
from mgjax.data.clip_files import Entry, Rejected


@dataclasses.dataclass(frozen=True)
class Input:
  """A clip that is named, with its caption; whether it can be read is not known yet."""

  name: str  # in words that the user knows: where it lies in what was given
  caption: str
  size: int  # in bytes
  load: Callable[[], bytes] = dataclasses.field(repr=False)
  start: float | None = None  # the second from which on it counts


class Inputs(abc.ABC):
  """Inputs in an order that is the same each time; what cannot be one is a `Rejected` among them.

  Attributes:
    identity: what tells these inputs from others, in plain JSON values.
  """

  identity: dict[str, object]

  @abc.abstractmethod
  def __len__(self) -> int:
    """How many there are, rejected ones too."""

  @abc.abstractmethod
  def between(self, first: int, last: int) -> Iterator[Input | Rejected]:
    """Yields the inputs first, first + 1, ..., last - 1."""

  def __getitem__(self, index: int) -> Input | Rejected:
    if not 0 <= index < len(self):
      raise IndexError(f'input {index} of {len(self)}')
    return next(self.between(index, index + 1))


class FileInputs(Inputs):
  """The files that `clip_files.list_entries` lists."""

  def __init__(self, entries: list[Entry | Rejected]):
    self._entries = entries
    self.identity = {'layout': 'files', 'names': digest(entry.name for entry in entries)}

  def __len__(self) -> int:
    return len(self._entries)

  def between(self, first: int, last: int) -> Iterator[Input | Rejected]:
    """Yields them; their files are looked at now."""
    for entry in self._entries[first:last]:
      if isinstance(entry, Rejected):
        yield entry
        continue
      try:
        if not entry.path.is_file():  # opening a pipe or a device could wait for ever
          raise DataError(
            'is not a regular file' if entry.path.exists() else 'there is no such file'
          )
        yield Input(
          entry.name,
          entry.caption,
          entry.path.stat().st_size,
          functools.partial(_read, entry.path),
          entry.start,
        )
      except OSError as error:
        yield Rejected(entry.name, f'cannot be read: {error.strerror}')
      except DataError as error:
        yield Rejected(entry.name, str(error))


def digest(names: Iterable[str]) -> str:
  """Names a list of names."""
  state = hashlib.blake2b(digest_size=16)
  for name in names:
    state.update(name.encode('utf-8', 'surrogateescape') + b'\0')
  return state.hexdigest()


def read_part(path: pathlib.Path, offset: int, size: int) -> bytes:
  """Reads `size` bytes from `offset` on.

  Raises:
    DataError: they are not there.
  """
  try:
    with path.open('rb') as file:
      file.seek(offset)
      data = file.read(size)
  except OSError as error:
    raise DataError(f'{path} cannot be read: {error.strerror}') from error
  if len(data) != size:
    raise DataError(f'{path} is cut off: {size} bytes from {offset} on are not all there')
  return data


def _read(path: pathlib.Path) -> bytes:
  try:
    return path.read_bytes()
  except OSError as error:
    raise DataError(f'cannot be read: {error.strerror}') from error
