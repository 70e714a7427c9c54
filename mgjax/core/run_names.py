"""Names of published runs: repositories of the Hugging Face Hub and URLs; opens none of them."""

import os
import pathlib
import re
from typing import NamedTuple

from mgjax.core.errors import ConfigError

_DIGEST = '(#(?P<digest>[0-9a-f]{64}))?'
_HUB = re.compile(
  r'hf:/{1,2}(?P<repository>\w[\w.-]*/\w[\w.-]*)(@(?P<revision>[\w./-]+))?' + _DIGEST
)
_URL = re.compile(
  r'(?P<scheme>(?!hf:)[a-z][a-z0-9+.-]+):(?P<slashes>/{1,3})(?P<path>(?!.*::)[^/#?][^#?]*?)/*'
  + _DIGEST
)
_PAGE = re.compile(
  r'https?://(?:www\.)?(?:huggingface|hf)\.co/(?:models/)?'
  r'(?P<repository>[\w.-]+/[\w.-]+)(?:/(?:tree|blob|resolve)/(?P<revision>[\w.-]+).*)?/?'
)
LOCAL = ('file', 'local')


class Name(NamedTuple):
  """What a name says: a place, a branch, tag or commit on the Hub, the SHA-256 of a list or ''."""

  place: str
  revision: str
  digest: str

  def __str__(self) -> str:
    revision, digest = f'@{self.revision}' * bool(self.revision), f'#{self.digest}'
    return self.place + revision + digest * bool(self.digest)

  @property
  def repository(self) -> str:
    """The repository on the Hub, '' for a URL."""
    return self.place.removeprefix('hf://') if self.place.startswith('hf://') else ''


def is_name(name: str | os.PathLike[str]) -> bool:
  """Says whether something names a published run; a path that was made of such a name does."""
  scheme, found, rest = os.fspath(name).partition(':/')
  if not found or not re.fullmatch('[a-z][a-z0-9+.-]+', scheme):  # one letter is a drive
    return False
  if scheme == 'hf' or rest.startswith('/'):
    return True
  import fsspec  # a folder may be called 'a:', which no protocol is

  return scheme in fsspec.available_protocols()


def read_name(name: str | os.PathLike[str]) -> Name:
  """Reads a name. Raises ConfigError unless it is one."""
  text = os.fspath(name)
  if found := _HUB.fullmatch(text):
    return Name(f'hf://{found["repository"]}', found['revision'] or 'main', found['digest'] or '')
  if found := _PAGE.fullmatch(text):
    name = found['repository'] + f'@{found["revision"]}' * bool(found['revision'])
    raise ConfigError(f'{text:.200} is a page of the Hub; give hf://{name}')
  found = _URL.fullmatch(text)
  if found is None or (found['scheme'] in LOCAL and len(found['slashes']) == 2):
    raise ConfigError(
      f'{text:.200}: expected hf://owner/name, or hf://owner/name@revision, or a URL such as '
      's3://bucket/run or file:///path/run'
    )
  slashes = found['slashes']
  if len(slashes) == 1:  # of a path, which has lost the others
    slashes = '///' if found['scheme'] in LOCAL else '//'
  return Name(f'{found["scheme"]}:{slashes}{found["path"]}', '', found['digest'] or '')


def own_folder(folder: str | os.PathLike[str]) -> pathlib.Path:
  """Returns a folder that is written to. Raises ConfigError if it is the name of a published run.

  Or a folder that is called as its protocol would be made here.
  """
  if is_name(folder):
    raise ConfigError(
      f'{os.fspath(folder)!r} is a URL; expected a folder, on a disk that all hosts share. '
      'Checkpoints may lie behind a URL, by --config.train.checkpoints=gs://bucket/run, and '
      'launch.weights push copies what a run learnt to one; records may be copied later'
    )
  return pathlib.Path(folder)
