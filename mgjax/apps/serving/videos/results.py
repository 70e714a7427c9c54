"""Keeps what jobs made: a folder for each id, here or at a URL of fsspec that all workers reach.

Folders that are made here are for this user alone (700), and so are files (600): they hold prompts.
"""

import contextlib
import errno
import os
import pathlib
import shutil

import fsspec

from mgjax.core.errors import ConfigError
from mgjax.core.files import write_bytes

_KEPT = 8e6  # bytes of a disk that stay free, an eighth of a small one: for what the database notes


class Results:
  """Files by the id of their job. A file appears whole, under its name, or not at all."""

  def __init__(self, url: str, cache: pathlib.Path):
    """Opens a folder or a URL; what lies elsewhere is fetched into `cache` to be read.
    Raises ConfigError if fsspec does not know such URLs, or their package is missing.
    """
    try:
      self._files, self.root = fsspec.core.url_to_fs(url)
      self.local = 'file' in self._files.protocol
      if self.local:
        pathlib.Path(self.root).mkdir(mode=0o700, parents=True, exist_ok=True)
      else:
        self._files.makedirs(self.root, exist_ok=True)
    except (ImportError, ValueError, OSError) as error:
      raise ConfigError(f'--out={url}: {error}; give a folder, or a URL such as s3://x') from error
    self._near = pathlib.Path(self.root) if self.local else cache

  def check_room(self, size: int = 0) -> None:
    """Raises OSError (ENOSPC) if a folder has no room for so many bytes more."""
    if self.local:
      disk = shutil.disk_usage(self.root)
      if disk.free < size + min(_KEPT, disk.total / 8):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

  def put(self, job: str, name: str, data: bytes) -> None:
    """Writes a file. Raises OSError (ENOSPC) if there is no room."""
    self.check_room(len(data))
    if self.local:
      write_bytes(self._near / job / name, data, private=True)
    else:
      self._files.pipe_file(f'{self.root}/{job}/{name}', data)  # stores show it when it is whole

  def path(self, job: str, name: str) -> pathlib.Path | None:
    """Returns a file to be read, None if there is none."""
    path = self._near / job / name
    if not (self.local or path.is_file()) and (data := self.get(job, name)) is not None:
      write_bytes(path, data, private=True)
    return path if path.is_file() and path.stat().st_size else None  # a crash leaves 0 bytes

  def get(self, job: str, name: str) -> bytes | None:
    """Returns the bytes of a file as it is now, None if there is none."""
    with contextlib.suppress(FileNotFoundError, NotADirectoryError, KeyError):
      return self._files.cat_file(f'{self.root}/{job}/{name}')
    return None

  def names(self, job: str) -> list[str]:
    """Lists the files of a job."""
    with contextlib.suppress(FileNotFoundError):
      return [pathlib.PurePath(path).name for path in self._files.ls(f'{self.root}/{job}', False)]
    return []

  def remove(self, job: str) -> None:
    """Deletes the files of a job, as far as that can be done."""
    with contextlib.suppress(OSError):
      self._files.rm(f'{self.root}/{job}', recursive=True)
    shutil.rmtree(self._near / job, ignore_errors=True)
