"""Published weights on disk: one file, or several with an index."""

import hashlib
import os
import pathlib
from collections.abc import Mapping
from typing import NamedTuple

from mgjax.core.configuration.keys import JSON
from mgjax.core.errors import ConfigError
from mgjax.core.files import read_json
from mgjax.core.safetensors_files import StoredTensor, listed, shown, stored_tensors
from mgjax.models.foreign_weights.torch_pickle import TORCH_SUFFIXES, open_pickle

INDEX = '.index.json'


class WeightFile(NamedTuple):
  """What a model's files hold."""

  tensors: Mapping[str, StoredTensor]  # by their names, in their types; nothing is read yet
  # The object in config.json of the folder, or None: a file given by itself has none.
  config: JSON | None
  files: tuple[pathlib.Path, ...]  # that hold the tensors

  def types(self) -> dict[str, str]:
    """Returns the type of every tensor."""
    return {name: str(tensor.dtype) for name, tensor in self.tensors.items()}

  def digests(self) -> dict[str, str]:
    """Returns the SHA-256 of every file by its name; it reads all of them."""
    digests = {}
    for path in self.files:
      with path.open('rb') as file:
        digests[path.name] = hashlib.file_digest(file, 'sha256').hexdigest()
    return digests


def read_weights(path: str | os.PathLike[str]) -> WeightFile:
  """Opens a file of tensors, an index of several, or a folder that has either and a config.json.

  Of a folder with files of both kinds safetensors are read, and not PyTorch's own. Raises
  ConfigError if there are no such files, or they are damaged, or are not what their index says.
  """
  path = pathlib.Path(path)
  folder = path.parent if path.name.endswith(INDEX) else path
  config_file = folder / 'config.json'
  config = read_json(config_file, mend='get it again') if config_file.exists() else None
  path = _in_folder(path) if path.is_dir() else path
  parts = _read_index(path) if path.name.endswith(INDEX) else {path.name: None}
  tensors: dict[str, StoredTensor] = {}
  for name, expected in parts.items():
    file = path.parent / name
    file_tensors = open_pickle(file) if name.endswith(TORCH_SUFFIXES) else stored_tensors(file)
    if expected is not None and file_tensors.keys() != expected:
      kinds = {
        'missing': sorted(expected - file_tensors.keys()),
        'more': sorted(file_tensors.keys() - expected),
      }
      raise ConfigError(
        f'{os.fspath(file)!r} does not hold what {path.name} says: {listed(kinds)}; get both again'
      )
    tensors |= file_tensors
  return WeightFile(tensors, config, tuple(path.parent / name for name in parts))


def _in_folder(folder: pathlib.Path) -> pathlib.Path:
  """Returns the index or the only weight file of a folder; of two precisions, the shorter name."""
  for suffixes in (('.safetensors',), TORCH_SUFFIXES):
    for endings in ([f'{suffix}{INDEX}' for suffix in suffixes], suffixes):
      files = [file for file in folder.iterdir() if file.name.endswith(tuple(endings))]
      files.sort(key=lambda file: (len(file.name), file.name))
      if len(files) > 1 and len(files[0].name) == len(files[1].name):
        raise ConfigError(
          f'{os.fspath(folder)!r} has {files[0].name}, {files[1].name} and no index; give one file'
        )
      if files:
        return files[0]
  raise ConfigError(
    f'{os.fspath(folder)!r} has no weights; expected model.safetensors, or files with '
    f'model.safetensors{INDEX}, or such of PyTorch'
  )


def _read_index(path: pathlib.Path) -> Mapping[str, set[str]]:
  """Returns which tensors are in which file."""
  where = read_json(path, mend='get it again').get('weight_map')
  if not isinstance(where, dict) or not where:
    raise ConfigError(f'{os.fspath(path)!r} has no weight_map of tensors and files; get it again')
  parts: dict[str, set[str]] = {}
  for tensor, file in where.items():
    if not isinstance(file, str) or os.path.basename(file) != file:
      raise ConfigError(
        f'{os.fspath(path)!r} says that {shown(tensor)} is in {file!r:.100}; expected the name of '
        'a file beside it'
      )
    parts.setdefault(file, set()).add(tensor)
  if absent := [file for file in parts if not os.path.isfile(path.parent / file)]:
    raise ConfigError(f'{path.name} names files that are not there: {listed({"absent": absent})}')
  return parts
