"""Keeps what jobs made: a folder for each id, here or at a URL of fsspec that all workers reach."""

import contextlib
import pathlib

from mgjax.core.errors import ConfigError
from mgjax.core.files import write_bytes


class Results:
  """Files by the id of their job. A file appears whole, under its name, or not at all."""

  def __init__(self, url: str, cache: pathlib.Path):
    """Opens a folder or a URL; what lies elsewhere is fetched into `cache` to be read.
    Raises ConfigError if fsspec does not know such URLs, or their package is missing.
    """
    import fsspec

    try:
      self._files, self.root = fsspec.core.url_to_fs(url)
      self._files.makedirs(self.root, exist_ok=True)
    except (ImportError, ValueError, OSError) as error:
      raise ConfigError(f'--out={url}: {error}; give a folder, or a URL such as s3://x') from error
    self.local = 'file' in self._files.protocol
    self._cache = cache

  def put(self, job: str, name: str, data: bytes) -> None:
    """Writes a file."""
    place = f'{self.root}/{job}/{name}'
    if self.local:
      pathlib.Path(place).parent.mkdir(parents=True, exist_ok=True)
      write_bytes(place, data)
    else:
      self._files.pipe_file(place, data)  # which object stores show when it is whole

  def path(self, job: str, name: str) -> pathlib.Path | None:
    """Returns a file to be read, None if there is none."""
    if self.local:
      found = pathlib.Path(self.root, job, name)
      return found if found.is_file() else None
    found = self._cache / job / name
    if not found.is_file():
      data = self.get(job, name)
      if data is None:
        return None
      found.parent.mkdir(parents=True, exist_ok=True)
      write_bytes(found, data)
    return found

  def get(self, job: str, name: str) -> bytes | None:
    """Returns the bytes of a file as it is now, None if there is none."""
    try:
      return self._files.cat_file(f'{self.root}/{job}/{name}')
    except (FileNotFoundError, NotADirectoryError, KeyError):
      return None

  def names(self, job: str) -> list[str]:
    """Lists the files of a job."""
    with contextlib.suppress(FileNotFoundError):
      return [
        each.rpartition('/')[2] for each in self._files.ls(f'{self.root}/{job}', detail=False)
      ]
    return []

  def remove(self, job: str) -> None:
    """Deletes the files of a job."""
    import shutil

    with contextlib.suppress(FileNotFoundError):
      self._files.rm(f'{self.root}/{job}', recursive=True)
    shutil.rmtree(self._cache / job, ignore_errors=True)
