"""Parses names of published runs: Hugging Face Hub repositories and URLs; opens none of them."""

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


class RunName(NamedTuple):
  """A parsed name: location, Hub branch, tag or commit, and SHA-256 of the file list or ''."""

  place: str
  revision: str
  digest: str

  def __str__(self) -> str:
    revision = f'@{self.revision}' if self.revision else ''
    digest = f'#{self.digest}' if self.digest else ''
    return self.place + revision + digest

  @property
  def repository(self) -> str:
    """The repository on the Hub, '' for a URL."""
    return self.place.removeprefix('hf://') if self.place.startswith('hf://') else ''


def is_name(name: str | os.PathLike[str]) -> bool:
  """Returns whether this names a published run, also if it was converted to a path before."""
  scheme, separator, rest = os.fspath(name).partition(':/')
  if not separator or not re.fullmatch('[a-z][a-z0-9+.-]+', scheme):  # one letter is a drive
    return False
  if scheme == 'hf' or rest.startswith('/'):
    return True
  import fsspec  # a folder may be called 'a:', which is no protocol

  return scheme in fsspec.available_protocols()


def read_name(name: str | os.PathLike[str]) -> RunName:
  """Parses the name of a published run. Raises ConfigError if it is not one."""
  text = os.fspath(name)
  if match := _HUB.fullmatch(text):
    return RunName(
      f'hf://{match["repository"]}', match['revision'] or 'main', match['digest'] or ''
    )
  if match := _PAGE.fullmatch(text):
    revision = f'@{match["revision"]}' if match['revision'] else ''
    raise ConfigError(
      f'{text:.200} is a page of the Hub; give hf://{match["repository"]}{revision}'
    )
  match = _URL.fullmatch(text)
  if match is None or (match['scheme'] in LOCAL and len(match['slashes']) == 2):
    raise ConfigError(
      f'{text:.200}: expected hf://owner/name, or hf://owner/name@revision, or a URL such as '
      's3://bucket/run or file:///path/run'
    )
  slashes = match['slashes']
  if len(slashes) == 1:  # `pathlib` collapses repeated slashes
    slashes = '///' if match['scheme'] in LOCAL else '//'
  return RunName(f'{match["scheme"]}:{slashes}{match["path"]}', '', match['digest'] or '')


def own_folder(folder: str | os.PathLike[str]) -> pathlib.Path:
  """Returns the path of a folder to write to. Raises ConfigError if it names a published run.

  Without this check a local folder named like the URL's protocol would be created.
  """
  if is_name(folder):
    raise ConfigError(
      f'{os.fspath(folder)!r} is a URL; expected a folder, on a disk that all hosts share. '
      'Checkpoints may lie behind a URL, by --config.train.checkpoints=gs://bucket/run, and '
      'launch.weights push copies what a run learned to one; records may be copied later'
    )
  return pathlib.Path(folder)
