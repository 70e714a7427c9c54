"""The folders of checkpoints on disk: their sizes, their removal, and whether they may be read."""

import contextlib
import os
import shutil

import jax
from etils import epath

REMOVED = 'removed'  # folder of what is being deleted: half of a checkpoint never looks like one


def remove_checkpoint(directory: epath.Path, name: str) -> None:
  """Removes one checkpoint; if it is interrupted, what is left is no step any more."""
  path = directory / name
  if '://' not in os.fspath(directory):  # a bucket cannot rename a folder at once
    sweep(directory)
    (directory / REMOVED).mkdir(exist_ok=True)
    path = path.rename(directory / REMOVED / name)
  path.rmtree()
  sweep(directory, idle=True)


def sweep(directory: epath.Path, idle: bool = False) -> None:
  """Deletes what was removed, or half of it; while orbax is `idle` also the folder of that."""
  place = os.path.join(os.fspath(directory), REMOVED)
  if '://' not in place and jax.process_index() == 0 and os.path.isdir(place):
    for name in os.listdir(place):
      shutil.rmtree(os.path.join(place, name), ignore_errors=True)
    if idle:
      with contextlib.suppress(OSError):
        os.rmdir(place)


def size_and_time(path: epath.Path) -> tuple[int, float]:
  """Returns the bytes of a file, or of all in a directory, and when it was written (since 1970)."""
  total = 0
  last = 0.0
  # A folder behind a URL has no time of its own.
  for each in path.iterdir() if path.is_dir() else [path]:
    if each.is_dir():
      size, written = size_and_time(each)
    else:
      size = each.stat().length
      written = float(each.stat().mtime)
    total = total + size
    last = max(last, written)
  return total, last


def find_denied(path: epath.Path) -> str:
  """Returns a file or folder of a checkpoint that this process may not read, '' if it may all."""
  if '://' in os.fspath(path):
    return ''
  modes = os.R_OK, os.R_OK | os.X_OK
  effective = os.access in os.supports_effective_ids
  places = [(os.fspath(path), True)]
  for folder, folders, files in os.walk(path):
    places += [(os.path.join(folder, name), True) for name in folders]
    places += [(os.path.join(folder, name), False) for name in files]
  for place, is_folder in places:
    if os.path.lexists(place) and not os.access(place, modes[is_folder], effective_ids=effective):
      return place
  return ''
