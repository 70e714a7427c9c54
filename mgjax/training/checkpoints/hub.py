"""Places of published runs: repositories of the Hugging Face Hub, and folders at URLs of fsspec.

`hf://owner/name@revision` is one on the Hub, to which huggingface_hub speaks, and so HF_ENDPOINT,
HF_TOKEN and HF_HUB_OFFLINE count. `gs://bucket/run`, `s3://bucket/run`, `file:///path/run` and
what else fsspec knows are folders, with the credentials of the package that opens them. Both may
end with `#` and the SHA-256 of their list.
"""

import contextlib
import functools
import hashlib
import os
import pathlib
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

from mgjax.core.errors import ConfigError, DataError, MgjaxError, first_line
from mgjax.core.run_names import LOCAL, Name
from mgjax.training.checkpoints.run_references import LIST

LONGEST = 2**20  # bytes of the list
ErrorSentence = tuple[type[MgjaxError], str]  # the kind of an error and a sentence
_GOES_ON = 'the same command goes on with what is missing'


class Repository(NamedTuple):
  """A repository on the Hub."""

  run: Name

  def read_list(self) -> tuple[str, bytes]:
    """Returns the commit of a revision, and the bytes of its list."""
    repository, revision = self.run.repository, self.run.revision
    with _in_sentences(self.run, _hub_error):
      about = _download(repository, LIST, revision=revision, dry_run=True)
      if (about.file_size or 0) > LONGEST:
        raise DataError(f'{self.run}: {LIST} has {about.file_size:,} bytes, above {LONGEST:,}')
      # By the revision, or it could not be found offline; its folder is called as the commit.
      path = pathlib.Path(_download(repository, LIST, revision=revision))
    data = path.read_bytes()
    if self.run.digest not in ('', hashlib.sha256(data).hexdigest()):
      for kept in (path.resolve(), path):
        kept.unlink(missing_ok=True)
    return path.parent.name, data

  def get(self, file: str, size: int, folder: pathlib.Path) -> None:
    """Fetches a file into a folder, unless it is there. Raises DataError if its size is another."""
    options = {'revision': self.run.revision, 'local_dir': folder}
    with _in_sentences(self.run, _hub_error):
      about = _download(self.run.repository, file, dry_run=True, **options)
      _check_size(self.run, file, about.file_size, size)
      _download(self.run.repository, file, **options)

  def put(self, files: Mapping[str, pathlib.Path], data: bytes) -> str:
    """Writes files and their list in one commit, which is returned."""
    import huggingface_hub

    repository, revision = self.run.repository, self.run.revision
    api = huggingface_hub.HfApi()
    add = huggingface_hub.CommitOperationAdd
    with _in_sentences(self.run, _hub_error):
      api.create_repo(repository, exist_ok=True, private=True)
      if revision != 'main':
        api.create_branch(repository, branch=revision, exist_ok=True)
      done = api.create_commit(
        repository,
        [add(LIST, data), *(add(file, path) for file, path in files.items())],
        commit_message='Weights, configuration and card',
        revision=revision,
      )
    return done.oid


class Folder:
  """A folder at a URL of fsspec, as `Repository`, but without commits."""

  def __init__(self, run: Name):
    """Opens it. Raises ConfigError where fsspec does not know it, or lacks a package for it."""
    import fsspec

    self.run = run
    self._scheme = run.place.partition(':')[0]
    more = {'auto_mkdir': True} if self._scheme in LOCAL else {}
    with self._in_sentences(''):
      self._files, self._root = fsspec.core.url_to_fs(run.place, **more)

  def read_list(self) -> tuple[str, bytes]:
    """Returns '' and the bytes of the list."""
    with self._in_sentences(
      f'there is no such place, or no {LIST} in it, which launch.weights push writes last'
    ):
      path = f'{self._root}/{LIST}'
      # To read a pipe would wait for ever.
      if self._scheme in LOCAL and self._files.info(path)['type'] == 'other':
        raise ConfigError(f'{self.run}: {LIST} is no regular file; publish it anew')
      data = self._files.cat_file(path, end=LONGEST + 1)
    if len(data) > LONGEST:
      raise DataError(f'{self.run}: {LIST} has more than {LONGEST:,} bytes')
    return '', data

  def get(self, file: str, size: int, folder: pathlib.Path) -> None:
    """Fetches a file into a folder, unless it is there. Raises DataError if its size is another."""
    whole = folder / file
    part = folder / '.cache' / 'part'
    there = f'{self._root}/{file}'
    if whole.is_file() and whole.stat().st_size == size:
      return
    with self._in_sentences(f'it lacks {file}, which is listed; publish it anew'):
      _check_size(self.run, file, self._files.size(there), size)
      for path in (whole, part):
        path.parent.mkdir(parents=True, exist_ok=True)
      try:
        with _bar(file) as bar:
          self._files.get_file(there, os.fspath(part), callback=bar)
        os.replace(part, whole)
      finally:
        part.unlink(missing_ok=True)

  def put(self, files: Mapping[str, pathlib.Path], data: bytes) -> str:
    """Writes files, and last their list, without which nothing of them is read."""
    with self._in_sentences('there is no such bucket or host; make it first'):
      with contextlib.suppress(FileNotFoundError):
        self._files.rm_file(f'{self._root}/{LIST}')
      for file, path in files.items():
        with _bar(file) as bar:
          self._files.put_file(os.fspath(path), f'{self._root}/{file}', callback=bar)
      self._files.pipe_file(f'{self._root}/{LIST}', data)
    return ''

  def _in_sentences(self, missing: str) -> contextlib.AbstractContextManager[None]:
    return _in_sentences(self.run, functools.partial(_url_error, self._scheme, missing))


def open_place(run: Name) -> Repository | Folder:
  """Opens the place of a name. Raises ConfigError if it cannot be."""
  return Repository(run) if run.repository else Folder(run)


def _download(repository: str, file: str, **options: Any) -> Any:
  from huggingface_hub import errors, hf_hub_download

  for pause in (1, 4, 15, 0):  # seconds; huggingface_hub itself asks again after 429 alone
    try:
      return hf_hub_download(repository, file, **options)
    except errors.HfHubHTTPError as error:
      if not pause or error.response is None or error.response.status_code < 500:
        raise
      time.sleep(pause)


def _check_size(run: Name, file: str, there: int | None, size: int) -> None:
  if there not in (None, size):
    raise DataError(f'{run}: {file} has {there:,} bytes; {LIST} says {size:,}')


def _bar(file: str) -> Any:
  """A bar of the bytes of a file, on a terminal."""
  from fsspec.callbacks import TqdmCallback

  shown = {'desc': file, 'unit': 'B', 'unit_scale': True, 'disable': None}
  return TqdmCallback(tqdm_kwargs=shown)


@contextlib.contextmanager
def _in_sentences(run: Name, describe: Callable[[Exception], ErrorSentence]) -> Iterator[None]:
  """Says of what a client raises, which has tried several times, what is to be done."""
  try:
    yield
  except MgjaxError:
    raise
  except Exception as error:
    kind, sentence = describe(error)
    raise kind(f'{run}: {sentence}') from error


def _hub_error(error: Exception) -> ErrorSentence:
  from huggingface_hub import errors

  kind, mend = DataError, _GOES_ON
  if isinstance(error, errors.RepositoryNotFoundError | errors.RevisionNotFoundError):
    kind = ConfigError
    mend = 'there is no such repository or revision, or $HF_TOKEN has no access'
  elif isinstance(error, errors.RemoteEntryNotFoundError):
    kind = ConfigError
    mend = f'it lacks a file that is listed, or has no {LIST}, which launch.weights push writes'
  elif isinstance(error, errors.LocalEntryNotFoundError):
    mend = 'not all of it is on this machine; look at HF_ENDPOINT and HF_HUB_OFFLINE, try again'
  return kind, f'{first_line(error)}; {mend}'


def _url_error(scheme: str, missing: str, error: Exception) -> ErrorSentence:
  from fsspec.registry import available_protocols, known_implementations

  package = known_implementations.get(scheme, {'class': ''})['class'].split('.')[0]
  said = f'{type(error).__name__}: {first_line(error)}'
  if scheme not in available_protocols():
    return ConfigError, f'{scheme}:// is unknown; expected hf://, gs://, s3:// or another of fsspec'
  if isinstance(error, ImportError):
    advice = f'; pip install {package}' * (package != 'fsspec')
    return ConfigError, f'{first_line(error)}{advice}'
  if isinstance(error, FileNotFoundError | NotADirectoryError):
    return ConfigError, missing
  if isinstance(error, PermissionError) or 'Credentials' in said:
    return ConfigError, f'no access ({said}); look at your rights there and the credentials'
  return DataError, f'{said}; look at the connection and the credentials; {_GOES_ON}'
