"""Finds the files that lists of clips name, inside one folder and nowhere else on the disk."""

import errno
import functools
import os
import pathlib
import re
import stat
import unicodedata

from mgjax.core.errors import DataError, StorageError

_OF_A_NAME = (errno.ENAMETOOLONG, errno.ELOOP, errno.EACCES, errno.EPERM, errno.EINVAL)


class Places:
  """The files that names mean inside a folder.

  `root` is the folder as given, and `top` without links.

  A snapshot of the Hugging Face Hub holds links to the `blobs` beside it, which count as inside.
  """

  def __init__(self, root: pathlib.Path, suffixes: tuple[str, ...]):
    """Binds the folder, and the file endings that names may omit."""
    self.root = root
    self.top = root.resolve()
    caches = [
      folder.parent for folder in (self.top, *self.top.parents) if folder.name == 'snapshots'
    ]
    self._allowed = [self.top, *(cache / 'blobs' for cache in caches)]
    self._folders: dict[str, pathlib.Path] = {}
    self._names = functools.cache(functools.partial(_names_in, suffixes))

  def find(self, name: str) -> pathlib.Path:
    """Returns the file that a name means, which need not be there; raises as `locate`."""
    return self.locate(name)[1]

  def locate(self, name: str, below: str = '') -> tuple[pathlib.Path, pathlib.Path]:
    """Returns the path of a name in the folder, and the file there or the target of a link.

    A name is relative to the folder `below`, else to the whole. One that is not there may be
    another of the same letters, as accents are written in two ways and other systems do not tell
    capitals from small ones, or lack the ending.

    Raises:
      DataError: it lies elsewhere, or no path can be so.
      StorageError: what the folder lies on does not answer.
    """
    if '\0' in name:
      raise DataError('its path holds a NUL character')
    if '://' in name and re.match(r'[A-Za-z][A-Za-z0-9+.-]*://', name):
      raise DataError('is a URL; only files beside the manifest are read')
    if name.startswith(os.sep):
      roots = [top for top in (self.top, self.root.absolute()) if _is_in(name, top)]
      name = os.path.relpath(name, roots[0]) if roots else '..'
    if '..' in name and '..' in pathlib.PurePath(name).parts:
      raise DataError(
        'its path is absolute or leads upwards (..) and out of the folder; give it relative to the '
        'manifest'
      )
    tried = [os.path.join(below, name), name] if below else [name]
    try:
      for candidate in tried:
        path = self._path(candidate)
        try:
          link = stat.S_ISLNK(path.lstat().st_mode)
        except (FileNotFoundError, NotADirectoryError):
          continue
        return path, self._inside(path) if link else path
      alike = (self._alike(candidate.replace('\\', '/')) for candidate in tried)
      path = next(filter(None, alike), None) or self._path(tried[0])
      return path, self._inside(path)
    except OSError as error:
      raise unreadable(error, self.root) from error
    except RuntimeError as error:
      raise DataError('its path cannot be followed, its links lead round in circles') from error

  def _path(self, name: str) -> pathlib.Path:
    folder, base = os.path.split(name)
    if folder not in self._folders:  # to follow a whole path takes longer than all else
      self._folders[folder] = self._inside(self.top / folder)
    return self._folders[folder] / base

  def _alike(self, name: str) -> pathlib.Path | None:
    here = self.top
    for part in pathlib.PurePath(name).parts:
      known = self._names(here)
      alike = known.get(_folded(part)) or known.get(_folded(part) + '.') or []
      if len(alike) != 1:
        return None
      here = self._inside(here / alike[0]) if (here / alike[0]).is_dir() else here / alike[0]
    return here

  def _inside(self, path: pathlib.Path) -> pathlib.Path:
    path = path.resolve()
    if not any(path.is_relative_to(root) for root in self._allowed):
      raise DataError('is a link that leaves the folder')
    return path


def unreadable(error: OSError, root: pathlib.Path) -> DataError:
  """Returns what it means that a file below `root` cannot be looked at: a StorageError if no other
  file there could be either."""
  if error.errno in _OF_A_NAME:
    return DataError(f'its path cannot be followed: {error.strerror}')
  return StorageError(f'{root} does not answer: {error.strerror}')


def _is_in(name: str, root: pathlib.Path) -> bool:
  return pathlib.PurePath(name).is_relative_to(root)


def _folded(name: str) -> str:
  return unicodedata.normalize('NFC', name).casefold()


def _names_in(suffixes: tuple[str, ...], folder: pathlib.Path) -> dict[str, list[str]]:
  """Names in a folder, by themselves and, if they end so, without that but for the dot."""
  names: dict[str, list[str]] = {}
  for name in os.listdir(folder) if folder.is_dir() else []:
    stem, suffix = os.path.splitext(_folded(name))
    for key in (_folded(name), f'{stem}.')[: 1 + (suffix in suffixes)]:
      names.setdefault(key, []).append(name)
  return names
