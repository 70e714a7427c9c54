"""Storage of records: a local folder, or an object store behind a URL.

Both are flat sets of named files that appear complete or not at all. A folder is read with `preadv`
directly into the memory of arrays. A bucket (`gs://`, `s3://` and other key-value stores of
tensorstore) is read by byte ranges. tensorstore looks up credentials. For S3 the variable
AWS_ENDPOINT_URL names another server than Amazon's.
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
from mgjax.core.configuration.keys import JSON
from mgjax.core.errors import ConfigError, StorageError
from mgjax.core.plug_ins import Later

tensorstore: Any = Later('tensorstore')  # for buckets alone

_MOST_BUFFERS = 1000  # Linux takes 1024 in one call
_RETRIES = 10  # three minutes in total: each wait is twice the previous one


def inside(directory: str | os.PathLike[str], *names: str) -> str:
  """Returns the path or URL of a name below a directory."""
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
    """Returns the names that begin with `prefix`, with sizes if the listing has them.

    Raises StorageError if the folder cannot be reached.
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
    """Writes a file unless it exists, and returns whether it did. The first of several wins."""
    return files.create(self._path / name, data)

  def replace(self, name: str, data: bytes) -> None:
    files.write_bytes(self._path / name, data)

  @contextlib.contextmanager
  def partial(self, name: str) -> Iterator[pathlib.Path]:
    """Yields the path of a local file to write, which is deleted unless it is published."""
    self._path.mkdir(parents=True, exist_ok=True)
    path, _ = files.new_file(self._path, f'.{name}.', '.partial')
    try:
      yield path
    finally:
      path.unlink(missing_ok=True)

  def publish(self, partial: pathlib.Path, name: str) -> None:
    """Renames a finished local file to `name`, replacing an existing one."""
    with files.replaced(self._path / name) as temporary:
      os.replace(partial, temporary)

  def remove(self, name: str) -> None:
    (self._path / name).unlink(missing_ok=True)


class _Descriptor:
  """An open file, which is closed when the last thread releases it."""

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
    """Fills buffers with the bytes from `offset` on. Raises StorageError if it cannot."""
    remaining = [buffer for buffer in buffers if len(buffer)]
    while remaining:
      try:
        count = os.preadv(self._number, remaining[:_MOST_BUFFERS], offset)
      except OSError as error:
        raise _lost(self._path, error) from error
      if not count:
        raise StorageError(f'{self._path} ends before its byte {offset}, it was cut off')
      offset += count
      done = 0
      while done < len(remaining) and count >= len(remaining[done]):
        count -= len(remaining[done])
        done += 1
      remaining = remaining[done:]
      if count:
        remaining[0] = remaining[0][count:]


class ObjectStore:
  """Objects under a URL, such as `gs://bucket/path`, as `Folder`; files are written at once."""

  def __init__(self, url: str):
    self.location = url.rstrip('/')
    self.__setstate__({'location': self.location})

  def __getstate__(self) -> JSON:
    return {'location': self.location}  # connections cannot be pickled

  def __setstate__(self, state: JSON) -> None:
    self.location = state['location']
    try:
      self._store = tensorstore.KvStore.open(_spec(self.location), context=_context()).result()
    except ValueError as error:
      raise ConfigError(
        f'{self.location} is not a place for records ({error}); expected a local path, '
        'file:///path, gs://bucket/path or s3://bucket/path'
      ) from error

  def names(self, prefix: str = '', *, below: bool = False) -> dict[str, int | None]:
    """Returns names as `Folder.names` does; with `below` also those that contain a slash."""
    end = prefix[:-1] + chr(ord(prefix[-1]) + 1) if prefix else ''
    keys = _ask(self.location, self._store.list(tensorstore.KvStore.KeyRange(prefix, end)))
    return {key.decode(): None for key in keys if below or b'/' not in key}

  def read(self, name: str) -> bytes | None:
    result = _ask(f'{self.location}/{name}', self._store.read(name))
    return None if result.state == 'missing' else result.value

  def open(self, name: str) -> 'Handle':
    return _Object(self._store, name, f'{self.location}/{name}')

  def create(self, name: str, data: bytes) -> bool:
    location = f'{self.location}/{name}'
    result = _ask(location, self._store.read(name))
    if result.state != 'missing':
      return False
    # The generation of a missing object: the write fails if another process has created it since.
    written = self._store.write(name, data, if_equal=result.stamp.generation)
    return bool(_ask(location, written).generation)

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

  def __init__(self, store: Any, name: str, location: str):
    self._store = store
    self._name = name
    self._location = location

  def read_into(self, offset: int, buffers: Sequence[memoryview]) -> None:
    end = offset + sum(map(len, buffers))
    result = _ask(self._location, self._store.read(self._name, byte_range=slice(offset, end)))
    if result.state == 'missing':
      raise StorageError(f'{self._location} is gone')
    data = memoryview(result.value)
    begin = 0
    if len(data) != end - offset:
      raise StorageError(f'{self._location} ends before its byte {end - 1}, it was cut off')
    for buffer in buffers:
      buffer[:] = data[begin : begin + len(buffer)]
      begin += len(buffer)


# A reader of one file, which threads may share, and a flat set of files.
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
  """Connections, credentials and limits, shared by all buckets of a process."""
  kinds = ('gcs', 's3', 'http')
  return tensorstore.Context(
    {f'{kind}_request_retries': {'max_retries': _RETRIES} for kind in kinds}
  )


def _spec(url: str) -> str | JSON:
  """Returns the spec for tensorstore, which does not look up the S3 endpoint itself."""
  parts = urllib.parse.urlsplit(url)
  endpoint = os.environ.get('AWS_ENDPOINT_URL')
  if parts.scheme != 's3' or not endpoint:
    return f'{url}/'
  region = os.environ.get('AWS_REGION', 'us-east-1')
  bucket = {'bucket': parts.netloc, 'path': f'{parts.path.lstrip("/")}/'}
  return {'driver': 's3', 'endpoint': endpoint, 'aws_region': region, **bucket}


def _ask(location: str, answer: Any) -> Any:
  """Waits for a future of tensorstore. Raises StorageError if it fails."""
  try:
    return answer.result()
  except (ValueError, OSError, RuntimeError) as error:
    lines = str(error).splitlines() or ['']
    raise StorageError(f'{location} cannot be reached: {lines[0]:.300}') from error


def _lost(location: str | os.PathLike[str], error: OSError) -> StorageError:
  if isinstance(error, FileNotFoundError):
    return StorageError(f'{location} is gone')
  return StorageError(f'{location} cannot be read: {error.strerror}')
