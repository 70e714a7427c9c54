"""Published runs, on the Hugging Face Hub or at a URL: written there, and fetched to be used.

A place lists its files in `mgjax.json`, with their sizes and SHA-256. What is not listed is not
fetched, nothing is executed, and what is not as listed is refused by its name. A name
(`training/checkpoints/hub.py`) may end with `#` and the SHA-256 of that list, which fixes every
byte, also of what the run names in turn (`training/checkpoints/run_references.py`); `pinned` has
configurations say so. What is fetched lies in HF_HOME.
"""

import functools
import hashlib
import json
import os
import pathlib
import re
import shutil
import tempfile
from collections.abc import Mapping
from typing import Any

import filelock

from mgjax.core.configuration.renamed_keys import migrate
from mgjax.core.errors import ConfigError, DataError, first_line
from mgjax.core.files import (
  WRONG,
  parse_json,
  read_json,
  read_optional_json,
  read_regular,
  write_bytes,
  write_json,
)
from mgjax.core.run_names import RunName, is_name, own_folder, read_name
from mgjax.training.checkpoints.hub import open_place
from mgjax.training.checkpoints.run_references import (
  LIST,
  RUNS,
  WEIGHTS,
  RunField,
  check_fixed,
  is_pinned,
  run_field_of,
)

_KINDS = ('.safetensors', '.json', '.md', '.txt', '.model', '.gz', '.png', '.webp', '.mp4', '.wav')
_LARGEST = 2**38  # bytes of a file
_LONGEST_NAME, _DEEPEST = 200, 8
_ORIGINS: dict[pathlib.Path, RunName] = {}  # of folders that this process has fetched
_INSIDE = re.compile(r'(?!\.)[\w.,+-]+(/(?!\.)[\w.,+-]+)*')  # a path below the folder


@functools.cache
def fetch_run(name: str) -> pathlib.Path:
  """Returns the folder of a published run, whole and checked; fetches what is not there yet.

  Files that are there when it fails are not fetched again. Raises ConfigError where nothing is by
  that name, and DataError where it cannot be reached or is not what the list or the name says.
  """
  from huggingface_hub import constants

  run = read_name(name)
  data = b''
  cache = pathlib.Path(constants.HF_HOME) / 'mgjax'
  if not (run.digest and (cache / run.digest).is_dir()):
    run, data = _resolve(run)
  folder = cache / run.digest
  _ORIGINS[folder] = run
  if folder.is_dir():
    return _checked_once(folder, run)
  partial = folder.with_name(f'{run.digest}.part')
  cache.mkdir(parents=True, exist_ok=True)
  with filelock.FileLock(f'{folder}.lock'):
    if not folder.is_dir():
      source = open_place(run)
      for file, (size, _) in _read_list(data, run).items():
        source.get(file, size, partial)
      shutil.rmtree(partial / '.cache', ignore_errors=True)
      write_bytes(partial / LIST, data)
      os.replace(_checked(partial, run, '; it is thrown away', remove=True), folder)
  return folder


def origin_of(folder: pathlib.Path) -> RunName | None:
  """Returns what a folder, or one that it lies in, was fetched as by this process."""
  return _ORIGINS.get(folder) or _ORIGINS.get(folder.parent)


def pull(name: str, folder: str | os.PathLike[str]) -> RunName:
  """Copies a published run to a new folder, whole or not at all; returns its pinned name."""
  folder = own_folder(folder)
  if os.path.exists(folder):
    raise ConfigError(f'{os.fspath(folder)!r} is there already; give a new folder')
  check_pinned(name)
  run = read_name(pin(name))
  parent = folder.absolute().parent
  parent.mkdir(parents=True, exist_ok=True)
  with tempfile.TemporaryDirectory(dir=parent, prefix='.') as beside:
    os.replace(shutil.copytree(fetch_run(str(run)), pathlib.Path(beside, 'whole')), folder)
  return run


def push(files: Mapping[str, pathlib.Path], name: str) -> RunName:
  """Publishes files with their list; returns its pinned name.

  On the Hub in one commit, where a new repository is private; at a URL the list comes last.
  Raises ConfigError for a file of a kind that no list may have.
  """
  run = read_name(name)
  listed = {}
  for file, path in sorted(files.items()):
    _check_name(file, 'the folder')
    listed[file] = {'size': path.stat().st_size, 'sha256': _digest(path)}
  data = (json.dumps({'files': listed}, indent=2) + '\n').encode()
  _read_list(data, run)
  revision = open_place(run).put(files, data)
  return run._replace(revision=revision, digest=hashlib.sha256(data).hexdigest())


def pin(name: str) -> str:
  """Returns a name with its commit and the SHA-256 of its list; raises as `fetch_run` does."""
  run = read_name(name)
  return str(run if run.digest else _resolve(run)[0])


def pinned(value: Any, path: tuple[str, ...] = (), run_field: RunField | None = None) -> Any:
  """Returns a configuration, or a part of one, in which all names of published runs are pinned.

  `path` are the keys that lead to a part, `run_field` what its field names. In other fields
  URLs name data and services, and only names on the Hub are runs.
  """
  if isinstance(value, Mapping):
    run_fields = {key: run_field or run_field_of((*path, key)) for key in value}
    return {key: pinned(part, (*path, key), run_fields[key]) for key, part in value.items()}
  if isinstance(value, list | tuple):
    return type(value)(pinned(entry, path, run_field) for entry in value)
  if not isinstance(value, str):
    return value
  parts = (run_field or RUNS['start_from']).split(value)
  for index in range(1, len(parts), 2):
    if is_name(parts[index]) and (run_field or parts[index].startswith('hf:/')):
      parts[index] = pin(parts[index])
  return ''.join(parts)


def differing(folder: pathlib.Path) -> list[str]:
  """Returns the files of a published run that are not as its list says; none where it has none.

  Raises ConfigError or DataError if the list is no list.
  """
  if not os.path.lexists(folder / LIST):
    return []
  data = read_regular(folder / LIST, error=DataError, mend='pull the run again')
  return _unlike(folder, _read_list(data, RunName(os.fspath(folder), '', '')))


def check_pinned(name: str) -> None:
  """Checks that a name which fixes a published run also fixes all that the run names.

  Another name is not checked. Raises ConfigError, and what `fetch_run` raises.
  """
  if is_pinned(name):
    _check_pinned(name)


@functools.cache
def _check_pinned(name: str) -> None:
  for file in sorted(fetch_run(name).rglob('config.json')):
    config = read_json(file, error=DataError, mend='publish it anew')
    try:
      check_fixed(migrate(config), lambda part, here=file.parent: (here / part).exists(), name)
    except WRONG as wrong:
      raise DataError(
        f'{name}: {file.name} is damaged ({first_line(wrong)}); publish it anew'
      ) from wrong


def _resolve(run: RunName) -> tuple[RunName, bytes]:
  """Asks for the commit of a revision, and for its list."""
  revision, data = open_place(run).read_list()
  digest = hashlib.sha256(data).hexdigest()
  if run.digest not in ('', digest):
    raise DataError(
      f'{run}: the {"revision" if run.revision else "run"} changed: the SHA-256 of its {LIST} '
      f'is {digest} now; ask without #... if you mean what is there now'
    )
  return RunName(run.place, revision, digest), data


def _read_list(data: bytes, run: RunName) -> dict[str, tuple[int, str]]:
  """Returns size and SHA-256 of the files that a list names; refuses what may not be listed."""
  name = f'{LIST} of {run}'
  listed = parse_json(data, name, error=DataError, mend='publish it anew').get('files')
  if not isinstance(listed, dict):
    raise DataError(f'{name} lists no files; expected what launch.weights push writes')
  files = {}
  for file, about in listed.items():
    _check_name(file, name)
    if not file.endswith(_KINDS):
      raise ConfigError(
        f'{name} has {file!r:.200}, which is not fetched; expected files that hold data alone '
        f'({", ".join(_KINDS)}), and no pickles'
      )
    size, digest = (about.get(key) if isinstance(about, dict) else 0 for key in ('size', 'sha256'))
    if type(size) is not int or not re.fullmatch('[0-9a-f]{64}', str(digest)):
      raise DataError(f'{name} has no size and SHA-256 of {file}; publish it anew')
    if not 0 <= size <= _LARGEST:
      raise DataError(f'{name}: the size of {file} is not from 0 to {_LARGEST:,} bytes')
    files[file] = size, digest
  if missing := sorted({'config.json', WEIGHTS} - files.keys()):
    raise DataError(f'{name} names no {missing[0]}; expected what launch.weights push writes')
  return files


def _check_name(file: str, where: str) -> None:
  parts = file.split('/')
  if not _INSIDE.fullmatch(file) or len(parts) > _DEEPEST or max(map(len, parts)) > _LONGEST_NAME:
    raise ConfigError(
      f'{where} has {file!a:.200}, which is not fetched; expected names of at most '
      f'{_LONGEST_NAME} letters, digits and . , _ + -, in {_DEEPEST - 1} folders inside at most'
    )


def _checked_once(folder: pathlib.Path, run: RunName) -> pathlib.Path:
  """Does what `_checked` does, unless no file has changed since a process did.

  A file that has its inode, size and times is the same: gigabytes take seconds to hash.
  """
  note = folder.with_name(f'{folder.name}.checked')
  stats = {}
  for path in sorted(folder.rglob('*')):
    about = path.stat()
    stats[path.relative_to(folder).as_posix()] = [
      about.st_ino,
      about.st_size,
      about.st_mtime_ns,
      about.st_ctime_ns,
    ]
  if read_optional_json(note, lambda known: True) != stats:
    _checked(folder, run, f'; delete {os.fspath(folder)!r} to have it fetched again')
    write_json(note, stats)
  return folder


def _checked(
  folder: pathlib.Path, run: RunName, mend: str, *, remove: bool = False
) -> pathlib.Path:
  """Returns a folder that holds what its list says, and that the list asked for; or raises."""
  there = {path.relative_to(folder).as_posix(): path for path in folder.rglob('*')}
  there = {file: path for file, path in there.items() if path.is_file()}
  wrong = [] if LIST in there and _digest(there[LIST]) == run.digest else [LIST]
  listed = {} if wrong else _read_list(there[LIST].read_bytes(), run)
  wrong += _unlike(folder, listed)
  if wrong := wrong or sorted(there.keys() - {*listed, LIST}):
    if remove:
      (folder / wrong[0]).unlink(missing_ok=True)
    raise DataError(f'{run}: {wrong[0]} is not what {LIST} says, damaged or tampered with{mend}')
  return folder


def _unlike(folder: pathlib.Path, listed: Mapping[str, tuple[int, str]]) -> list[str]:
  """Returns the files that are not there, or not as they are listed."""
  wrong = []
  for file, (_, digest) in listed.items():
    path = folder / file
    right = path.is_file() and _digest(path) == digest
    if right and file.endswith('.safetensors'):
      with path.open('rb') as opened:
        right = opened.read(9)[8:] == b'{'  # where their header begins, and that of no pickle
    wrong += [file] * (not right)
  return wrong


def _digest(path: pathlib.Path) -> str:
  with path.open('rb') as file:
    return hashlib.file_digest(file, 'sha256').hexdigest()
