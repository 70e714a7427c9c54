"""Storage of records: a local folder, or an object store behind a URL.

Both are flat sets of named files that appear whole or not at all. A folder is read with `preadv`
straight into the memory of the arrays. A bucket (`gs://`, `s3://` and whatever else tensorstore's
key-value stores open) is read by byte ranges. Credentials are looked up by tensorstore; for S3 the
variable AWS_ENDPOINT_URL names another server than that of Amazon.
"""

import contextlib
import functools
import os
import pathlib
import shutil
import tempfile
import urllib.parse
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from mgjax.core import files
from mgjax.core.errors import ConfigError, StorageError
from mgjax.core.plug_ins import Later

tensorstore: Any = Later('tensorstore')  # for buckets alone

_MOST_BUFFERS = 1000  # Linux takes 1024 in one call
_RETRIES = 10  # three minutes, each wait twice as long as the one before


def inside(directory: str | os.PathLike[str], *names: str) -> str:
  """Returns the path or URL of what lies in a directory under these names."""
  if '://' in str(directory):
    return '/'.join([str(directory).rstrip('/'), *names])
  return os.path.join(directory, *names)


class Folder:
  """A folder on this machine or mounted; made when the first file is written."""

  def __init__(self, path: str | os.PathLike[str]):
    self._path = pathlib.Path(path)
    self.location = str(path)

  def __eq__(self, other: object) -> bool:
    return isinstance(other, Folder) and self.location == other.location

  def __hash__(self) -> int:
    return hash(self.location)

  def names(self, prefix: str = '') -> dict[str, int | None]:
    """Returns the names that begin with `prefix`, and the sizes where a listing tells them.
    Raises StorageError if there is no way to the folder.
    """
    sizes = {}
    try:
      with os.scandir(self._path) as entries:
        for entry in entries:
          with contextlib.suppress(FileNotFoundError):  # another process may be clearing up
            if entry.name.startswith(prefix) and entry.is_file():
              sizes[entry.name] = entry.stat().st_size
    except FileNotFoundError:
      pass
    except OSError as error:
      raise _lost(self.location, error) from error
    return sizes

  def read(self, name: str) -> bytes | None:
    """Returns a whole small file, or None if it does not exist."""
    try:
      return (self._path / name).read_bytes()
    except FileNotFoundError:
      return None
    except OSError as error:
      raise _lost(self._path / name, error) from error

  def open(self, name: str) -> 'Handle':
    """Opens a file for reading; StorageError if it is gone."""
    return _Descriptor(self._path / name)

  def create(self, name: str, data: bytes) -> bool:
    """Writes a file unless it exists; says whether it did. Of several at once the first wins."""
    return files.create(self._path / name, data)

  def replace(self, name: str, data: bytes) -> None:
    files.write_bytes(self._path / name, data)

  @contextlib.contextmanager
  def partial(self, name: str) -> Iterator[pathlib.Path]:
    """Yields the path of a local file to write, which vanishes unless it is published."""
    self._path.mkdir(parents=True, exist_ok=True)
    path, _ = files.new_file(self._path, f'.{name}.', '.partial')
    try:
      yield path
    finally:
      path.unlink(missing_ok=True)

  def publish(self, partial: pathlib.Path, name: str) -> None:
    """Gives a finished local file its name, over the one that exists."""
    with files.replaced(self._path / name) as temporary:
      os.replace(partial, temporary)

  def remove(self, name: str) -> None:
    (self._path / name).unlink(missing_ok=True)


class _Descriptor:
  """An open file, closed when the last thread that reads it lets go of it."""

  def __init__(self, path: pathlib.Path):
    self._path = path
    self._number = -1
    try:
      self._number = os.open(path, os.O_RDONLY)
    except OSError as error:
      raise _lost(path, error) from error

  def __del__(self, close: Callable[[int], None] = os.close) -> None:  # `os` may be gone by then
    if self._number >= 0:
      close(self._number)

  def read_into(self, offset: int, buffers: Sequence[memoryview]) -> None:
    """Fills buffers with the bytes from `offset` on; StorageError if it cannot."""
    left = [buffer for buffer in buffers if len(buffer)]
    while left:
      try:
        count = os.preadv(self._number, left[:_MOST_BUFFERS], offset)
      except OSError as error:
        raise _lost(self._path, error) from error
      if not count:
        raise StorageError(f'{self._path} ends before its byte {offset}, it was cut off')
      offset += count
      done = 0
      while done < len(left) and count >= len(left[done]):
        count -= len(left[done])
        done += 1
      left = left[done:]
      if count:
        left[0] = left[0][count:]


class ObjectStore:
  """Objects under a URL, such as `gs://bucket/path`, as `Folder`; files are written whole."""

  def __init__(self, url: str):
    self.location = url.rstrip('/')
    self.__setstate__({'location': self.location})

  def __getstate__(self) -> dict[str, Any]:
    return {'location': self.location}  # connections do not travel to other processes

  def __setstate__(self, state: dict[str, Any]) -> None:
    self.location = state['location']
    try:
      self._store = tensorstore.KvStore.open(_spec(self.location), context=_context()).result()
    except ValueError as error:
      raise ConfigError(
        f'{self.location} is not a place for records ({error}); expected a local path, '
        'file:///path, gs://bucket/path or s3://bucket/path'
      ) from error

  def names(self, prefix: str = '', *, below: bool = False) -> dict[str, int | None]:
    """Returns names as `Storage.names` does; with `below` those that hold a slash too."""
    end = prefix[:-1] + chr(ord(prefix[-1]) + 1) if prefix else ''
    keys = _ask(self.location, self._store.list(tensorstore.KvStore.KeyRange(prefix, end)))
    return {key.decode(): None for key in keys if below or b'/' not in key}

  def read(self, name: str) -> bytes | None:
    result = _ask(f'{self.location}/{name}', self._store.read(name))
    return None if result.state == 'missing' else result.value

  def open(self, name: str) -> 'Handle':
    return _Object(self._store, name, f'{self.location}/{name}')

  def create(self, name: str, data: bytes) -> bool:
    place = f'{self.location}/{name}'
    found = _ask(place, self._store.read(name))
    if found.state != 'missing':
      return False
    # The generation of what does not exist: written only if that is still so.
    written = self._store.write(name, data, if_equal=found.stamp.generation)
    return bool(_ask(place, written).generation)

  def replace(self, name: str, data: bytes) -> None:
    _ask(f'{self.location}/{name}', self._store.write(name, data))

  @contextlib.contextmanager
  def partial(self, name: str) -> Iterator[pathlib.Path]:
    folder = pathlib.Path(tempfile.mkdtemp(prefix='records'))
    try:
      yield folder / name
    finally:
      shutil.rmtree(folder, ignore_errors=True)

  def publish(self, partial: pathlib.Path, name: str) -> None:
    self.replace(name, partial.read_bytes())

  def remove(self, name: str) -> None:
    _ask(f'{self.location}/{name}', self._store.write(name, None))


class _Object:
  """An object that is read by ranges; it need not exist before it is read."""

  def __init__(self, store: Any, name: str, place: str):
    self._store, self._name, self._place = store, name, place

  def read_into(self, offset: int, buffers: Sequence[memoryview]) -> None:
    end = offset + sum(map(len, buffers))
    result = _ask(self._place, self._store.read(self._name, byte_range=slice(offset, end)))
    if result.state == 'missing':
      raise StorageError(f'{self._place} is gone')
    data = memoryview(result.value)
    begin = 0
    if len(data) != end - offset:
      raise StorageError(f'{self._place} ends before its byte {end - 1}, it was cut off')
    for buffer in buffers:
      buffer[:] = data[begin : begin + len(buffer)]
      begin += len(buffer)


# What reads a file, which threads may share, and a flat set of files.
Handle = _Descriptor | _Object
Storage = Folder | ObjectStore


def open_storage(directory: str | os.PathLike[str]) -> Storage:
  """Opens a local path, `file:///path`, or a URL that tensorstore's key-value stores take."""
  scheme, separator, rest = str(directory).partition('://')
  if not separator:
    return Folder(directory)
  if scheme == 'file':
    return Folder(urllib.parse.unquote(rest))
  return ObjectStore(str(directory))


@functools.cache
def _context() -> Any:
  """What all buckets of a process share: connections, credentials, limits."""
  kinds = ('gcs', 's3', 'http')
  return tensorstore.Context(
    {f'{kind}_request_retries': {'max_retries': _RETRIES} for kind in kinds}
  )


def _spec(url: str) -> Any:
  """What tensorstore opens; unlike other clients it does not look up where S3 is by itself."""
  parts = urllib.parse.urlsplit(url)
  endpoint = os.environ.get('AWS_ENDPOINT_URL')
  if parts.scheme != 's3' or not endpoint:
    return f'{url}/'
  region = os.environ.get('AWS_REGION', 'us-east-1')
  place = {'bucket': parts.netloc, 'path': f'{parts.path.lstrip("/")}/'}
  return {'driver': 's3', 'endpoint': endpoint, 'aws_region': region, **place}


def _ask(place: str, answer: Any) -> Any:
  """Waits for an answer of tensorstore, which raises ValueErrors for whatever went wrong."""
  try:
    return answer.result()
  except (ValueError, OSError, RuntimeError) as error:
    lines = str(error).splitlines() or ['']
    raise StorageError(f'{place} cannot be reached: {lines[0]:.300}') from error


def _lost(place: str | os.PathLike[str], error: OSError) -> StorageError:
  if isinstance(error, FileNotFoundError):
    return StorageError(f'{place} is gone')
  return StorageError(f'{place} cannot be read: {error.strerror}')
