"""Runs on the Hugging Face Hub, as `hf://owner/name@revision`: published, and fetched to be used.

A repository lists its files in `mgjax.json`, with their sizes and SHA-256. What is not listed is
not fetched, nothing is executed, and what is not as listed is refused by its name. A name may end
with `#` and the SHA-256 of that list, which fixes every byte: `pinned` has configurations say so.
huggingface_hub does the rest, and so HF_ENDPOINT, HF_TOKEN, HF_HOME and HF_HUB_OFFLINE count.
"""

import contextlib
import functools
import hashlib
import json
import os
import pathlib
import re
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import filelock

from mgjax.core.errors import ConfigError, DataError, MgjaxError, first_line
from mgjax.core.files import parse_json, write_bytes

LIST = 'mgjax.json'
KINDS = (
  '.safetensors', '.json', '.md', '.txt', '.model', '.gz', '.png', '.webp', '.mp4', '.wav'
)  # fmt: skip
LARGEST, LONGEST = 2**38, 2**20  # bytes of a file, and of the list
_NAME = re.compile(
  r'hf:/{1,2}(?P<repository>[\w.-]+/[\w.-]+)(@(?P<revision>[\w./-]+))?(#(?P<digest>[0-9a-f]{64}))?'
)
_INSIDE = re.compile(r'(?!\.)[\w.,+-]+(/(?!\.)[\w.,+-]+)*')  # a path below the folder


class Name(NamedTuple):
  """What a name says: a repository, a branch, tag or commit, and the SHA-256 of the list or ''."""

  repository: str
  revision: str
  digest: str

  def __str__(self) -> str:
    return f'hf://{self.repository}@{self.revision}' + f'#{self.digest}' * bool(self.digest)


def is_name(name: str | os.PathLike[str]) -> bool:
  """Says whether something names a run on the Hub; a path that was made of such a name does."""
  return os.fspath(name).startswith('hf:/')


def read_name(name: str | os.PathLike[str]) -> Name:
  """Reads a name. Raises ConfigError unless it is one."""
  match = _NAME.fullmatch(os.fspath(name))
  if match is None:
    raise ConfigError(
      f'{os.fspath(name):.200}: expected hf://owner/name, or hf://owner/name@revision'
    )
  return Name(match['repository'], match['revision'] or 'main', match['digest'] or '')


@functools.cache
def fetch(name: str) -> pathlib.Path:
  """Returns the folder of a run on the Hub, whole and checked; fetches what is not there yet.

  Files that are there when it fails are not fetched again. Raises ConfigError where nothing is by
  that name, and DataError where it cannot be reached or is not what the list or the name says.
  """
  from huggingface_hub import constants

  asked, data = read_name(name), b''
  cache = pathlib.Path(constants.HF_HOME) / 'mgjax'
  if not (asked.digest and (cache / asked.digest).is_dir()):
    asked, data = _resolve(asked)
  folder = cache / asked.digest
  if folder.is_dir():
    return _checked(folder, asked, f'; delete {os.fspath(folder)!r} to have it fetched again')
  partial = folder.with_name(f'{asked.digest}.part')
  cache.mkdir(parents=True, exist_ok=True)
  with filelock.FileLock(f'{folder}.lock'):
    if not folder.is_dir():
      for file, (size, _) in _read_list(data, asked).items():
        _download(asked, file, size, partial)
      shutil.rmtree(partial / '.cache', ignore_errors=True)
      write_bytes(partial / LIST, data)
      os.replace(_checked(partial, asked, '; it is thrown away', remove=True), folder)
  return folder


def pull(name: str, folder: str | os.PathLike[str]) -> Name:
  """Copies a run on the Hub to a new folder, whole or not at all; returns its pinned name."""
  if os.path.exists(folder):
    raise ConfigError(f'{os.fspath(folder)!r} is there already; give a new folder')
  asked = read_name(pin(name))
  parent = pathlib.Path(folder).absolute().parent
  parent.mkdir(parents=True, exist_ok=True)
  with tempfile.TemporaryDirectory(dir=parent, prefix='.') as beside:
    os.replace(shutil.copytree(fetch(str(asked)), pathlib.Path(beside, 'whole')), folder)
  return asked


def push(files: Mapping[str, pathlib.Path], name: str) -> Name:
  """Publishes files in one commit, with their list; returns its pinned name.

  A new repository is private. Raises ConfigError for a file of a kind that no list may have.
  """
  import huggingface_hub

  asked, listed = read_name(name), {}
  for file, path in sorted(files.items()):
    listed[file] = {'size': path.stat().st_size, 'sha256': _digest(path)}
  data = (json.dumps({'files': listed}, indent=2) + '\n').encode()
  _read_list(data, asked)
  api, add = huggingface_hub.HfApi(), huggingface_hub.CommitOperationAdd
  with _in_sentences(asked):
    api.create_repo(asked.repository, exist_ok=True, private=True)
    if asked.revision != 'main':
      api.create_branch(asked.repository, branch=asked.revision, exist_ok=True)
    done = api.create_commit(
      asked.repository, [add(LIST, data), *(add(file, path) for file, path in files.items())],
      commit_message='Weights, configuration and card', revision=asked.revision,
    )  # fmt: skip
  return asked._replace(revision=done.oid, digest=hashlib.sha256(data).hexdigest())


def pin(name: str) -> str:
  """Returns a name with its commit and the SHA-256 of its list; raises as `fetch` does."""
  asked = read_name(name)
  return str(asked if asked.digest else _resolve(asked)[0])


def pinned(value: Any) -> Any:
  """Returns a configuration, or a part of one, in which all names of runs on the Hub are pinned."""
  if isinstance(value, Mapping):
    return {key: pinned(each) for key, each in value.items()}
  if isinstance(value, list | tuple):
    return type(value)(pinned(each) for each in value)
  found = re.fullmatch('([^=]*=)?(hf:/.*)', value) if isinstance(value, str) else None
  return value if found is None else (found[1] or '') + pin(found[2])


def _resolve(asked: Name) -> tuple[Name, bytes]:
  """Asks for the commit of a revision, and for its list."""
  from huggingface_hub import hf_hub_download

  with _in_sentences(asked):
    about = hf_hub_download(asked.repository, LIST, revision=asked.revision, dry_run=True)
    if (about.file_size or 0) > LONGEST:
      raise DataError(f'{asked}: {LIST} has {about.file_size:,} bytes, above {LONGEST:,}')
    # By the revision, or it could not be found offline; its folder is called as the commit.
    path = pathlib.Path(hf_hub_download(asked.repository, LIST, revision=asked.revision))
  data = path.read_bytes()
  digest = hashlib.sha256(data).hexdigest()
  if asked.digest not in ('', digest):
    for kept in (path.resolve(), path):
      kept.unlink(missing_ok=True)
    raise DataError(
      f'{asked}: the revision changed: the SHA-256 of its {LIST} is {digest} now; ask without '
      '#... if you mean what is there now'
    )
  return Name(asked.repository, path.parent.name, digest), data


def _read_list(data: bytes, asked: Name) -> dict[str, tuple[int, str]]:
  """Returns size and SHA-256 of the files that a list names; refuses what may not be listed."""
  name = f'{LIST} of {asked}'
  listed = parse_json(data, name, error=DataError, mend='publish it anew').get('files')
  if not isinstance(listed, dict) or not {'config.json'} <= listed.keys():
    raise DataError(f'{name} names no config.json; expected what launch.weights push writes')
  found = {}
  for file, about in listed.items():
    if not _INSIDE.fullmatch(file) or not file.endswith(KINDS):
      raise ConfigError(
        f'{name} has {file!r:.200}, which is not fetched; expected files that hold data alone '
        f'({", ".join(KINDS)}), and no pickles'
      )
    size, digest = (about.get(key) if isinstance(about, dict) else 0 for key in ('size', 'sha256'))
    if type(size) is not int or not re.fullmatch('[0-9a-f]{64}', str(digest)):
      raise DataError(f'{name} has no size and SHA-256 of {file}; publish it anew')
    if not 0 <= size <= LARGEST:
      raise DataError(f'{name}: {file} has {size:,} bytes; at most {LARGEST:,} are fetched')
    found[file] = size, digest
  return found


def _download(asked: Name, file: str, size: int, folder: pathlib.Path) -> None:
  from huggingface_hub import hf_hub_download

  place = {'revision': asked.revision, 'local_dir': folder}
  with _in_sentences(asked):
    about = hf_hub_download(asked.repository, file, dry_run=True, **place)
    if about.file_size not in (None, size):
      raise DataError(f'{asked}: {file} has {about.file_size:,} bytes; {LIST} says {size:,}')
    hf_hub_download(asked.repository, file, **place)


def _checked(folder: pathlib.Path, asked: Name, mend: str, *, remove: bool = False) -> pathlib.Path:
  """Returns a folder that holds what its list says, and that the list asked for; or raises."""
  there = {path.relative_to(folder).as_posix(): path for path in folder.rglob('*')}
  there = {file: path for file, path in there.items() if path.is_file()}
  wrong = [] if LIST in there and _digest(there[LIST]) == asked.digest else [LIST]
  listed = {} if wrong else _read_list(there[LIST].read_bytes(), asked)
  for file, (_, digest) in listed.items():
    right = file in there and _digest(there[file]) == digest
    if right and file.endswith('.safetensors'):
      with there[file].open('rb') as opened:
        right = opened.read(9)[8:] == b'{'  # where their header begins, and that of no pickle
    wrong += [file] * (not right)
  if wrong := wrong or sorted(there.keys() - {*listed, LIST}):
    if remove:
      (folder / wrong[0]).unlink(missing_ok=True)
    raise DataError(f'{asked}: {wrong[0]} is not what {LIST} says, damaged or tampered with{mend}')
  return folder


def _digest(path: pathlib.Path) -> str:
  with path.open('rb') as file:
    return hashlib.file_digest(file, 'sha256').hexdigest()


@contextlib.contextmanager
def _in_sentences(asked: Name) -> Iterator[None]:
  """Says of what huggingface_hub raises what is to be done."""
  from huggingface_hub import errors

  kind, mend = DataError, 'the same command goes on with what is missing'
  try:
    yield
  except MgjaxError:
    raise
  except Exception as error:  # of its client, which has tried several times
    if isinstance(error, errors.RepositoryNotFoundError | errors.RevisionNotFoundError):
      kind, mend = (
        ConfigError,
        'there is no such repository or revision, or $HF_TOKEN has no access',
      )
    elif isinstance(error, errors.RemoteEntryNotFoundError):
      kind = ConfigError
      mend = f'it lacks a file that is listed, or has no {LIST}, which launch.weights push writes'
    elif isinstance(error, errors.LocalEntryNotFoundError):
      mend = 'not all of it is on this machine; look at HF_ENDPOINT and HF_HUB_OFFLINE, try again'
    raise kind(f'{asked}: {first_line(error)}; {mend}') from error
