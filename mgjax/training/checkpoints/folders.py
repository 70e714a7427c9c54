"""Folders of checkpoints on disk: their sizes, removal and permissions."""

import contextlib
import os
import shutil

import jax
from etils import epath

REMOVED = 'removed'  # a checkpoint is moved to this folder first, so its rest is no checkpoint


def remove_checkpoint(directory: epath.Path, name: str) -> None:
  """Removes one checkpoint. If this is interrupted, the rest does not count as a checkpoint."""
  path = directory / name
  if '://' not in os.fspath(directory):  # a bucket cannot rename a folder at once
    sweep(directory)
    (directory / REMOVED).mkdir(exist_ok=True)
    path = path.rename(directory / REMOVED / name)
  path.rmtree()
  sweep(directory, idle=True)


def sweep(directory: epath.Path, idle: bool = False) -> None:
  """Deletes the checkpoints in `REMOVED`; if orbax is `idle` also the folder itself."""
  removed = os.path.join(os.fspath(directory), REMOVED)
  if '://' not in removed and jax.process_index() == 0 and os.path.isdir(removed):
    for name in os.listdir(removed):
      shutil.rmtree(os.path.join(removed, name), ignore_errors=True)
    if idle:
      with contextlib.suppress(OSError):
        os.rmdir(removed)


def size_and_time(path: epath.Path) -> tuple[int, float]:
  """Returns the bytes of a file or directory, and its last write in seconds since 1970."""
  total = 0
  last = 0.0
  # A folder at a URL has no time of its own.
  for entry in path.iterdir() if path.is_dir() else [path]:
    if entry.is_dir():
      size, written = size_and_time(entry)
    else:
      size = entry.stat().length
      written = float(entry.stat().mtime)
    total = total + size
    last = max(last, written)
  return total, last


def find_denied(path: epath.Path) -> str:
  """Returns a file or folder of a checkpoint that this process cannot read; '' if none."""
  if '://' in os.fspath(path):
    return ''
  modes = os.R_OK, os.R_OK | os.X_OK
  effective = os.access in os.supports_effective_ids
  entries = [(os.fspath(path), True)]
  for folder, folders, files in os.walk(path):
    entries += [(os.path.join(folder, name), True) for name in folders]
    entries += [(os.path.join(folder, name), False) for name in files]
  for entry, is_folder in entries:
    if os.path.lexists(entry) and not os.access(entry, modes[is_folder], effective_ids=effective):
      return entry
  return ''
