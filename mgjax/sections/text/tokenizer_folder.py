"""Stores the tokenizer files of an imported encoder in its work directory."""

import hashlib
import logging
import os
import pathlib
import re
import shutil
import tempfile
from collections.abc import Mapping
from typing import Any

from mgjax.core.configuration.keys import Fields
from mgjax.core.errors import ConfigError
from mgjax.core.files import read_json, synchronise, write_bytes, write_json
from mgjax.core.settings import fields_of
from mgjax.models.text.tokenizer_files import (
  EXPECTED_TOKENIZER,
  KNOWN_FILES,
  read_tokenizer_file,
  tokenizer_files,
)
from mgjax.models.text.tokenizers import BYTES, Tokenizer, load_tokenizer
from mgjax.training.checkpoints.workdir import read_config

FOLDER = 'tokenizer'
# Of files, beside those that are KNOWN.
TOKENIZER_NAMES = re.compile(r'[\w.-]{1,100}\.(model|txt\.gz)', re.ASCII)
DIGESTS = 'sha256.json'  # of the files as they were imported
READERS = ('t5', 'clip_text')  # components that read text

_log = logging.getLogger(__name__)

TokenizerFiles = dict[str, bytes]


def find_tokenizer(
  component: str,
  tokenizer: str | None,
  model: Fields,
  source: str | os.PathLike[str],
  tokenizer_path: str | os.PathLike[str] | None,
) -> TokenizerFiles:
  """Reads and checks the tokenizer files of an imported encoder: name -> content.

  Args:
    tokenizer: 'file', 'bytes', or None for a component that reads no text.
    model: the fields of `config.model`.
    source: the folder of the weights, or a file in it, where the tokenizer is looked for.
    tokenizer_path: file or folder of a tokenizer to use instead, or None.

  Returns:
    {} if none is needed, or, with a warning, if there is none.

  Raises:
    ConfigError: the files cannot be used, or are not of this encoder.
  """
  if tokenizer != 'file':
    if tokenizer_path is None:
      return {}
    needs = 'is one of bytes' if tokenizer == BYTES else 'reads no text'
    raise ConfigError(
      f'--tokenizer={os.fspath(tokenizer_path)}: this {component} {needs} and needs no file; leave '
      'it out'
    )
  source = pathlib.Path(source)
  beside = source if source.is_dir() else source.parent
  path = beside if tokenizer_path is None else pathlib.Path(tokenizer_path)
  files = tokenizer_files(path)
  if not files and tokenizer_path is None:
    _log.warning(
      'there is no tokenizer beside the weights: tokens can be encoded, texts cannot; %s, with '
      '--tokenizer=FILE in another import or by hand in the folder %s of the work directory',
      EXPECTED_TOKENIZER,
      FOLDER,
    )
    return {}
  check_tokenizer(load_tokenizer(path), model, os.fspath(path))
  if path.is_dir():
    files += [file for name in KNOWN_FILES if (file := path / name).is_file() and file not in files]
  elif path.suffix == '.json' and len(files) == 1:
    return {'tokenizer.json': read_tokenizer_file(path)}  # the name that a folder's file has
  return {file.name: read_tokenizer_file(file) for file in files}


def make_tokenizer(name: str, text: Fields) -> Tokenizer:
  """Makes the tokenizer that `config.tokenizer` names: 'bytes', or a file or folder.

  Raises ConfigError if it is not there, or makes tokens that `text`, which is `config.model.text`,
  does not have.
  """
  tokenizer = load_tokenizer(name)
  check_tokenizer(tokenizer, text, name)
  return tokenizer


def check_tokenizer(tokenizer: Tokenizer, model: Mapping[str, Any], path: str) -> None:
  """Raises ConfigError if an encoder of these fields cannot have been trained with a tokenizer."""
  if tokenizer.size > model['vocabulary']:
    wrong = f'makes tokens up to {tokenizer.size - 1}, the encoder has {model["vocabulary"]}'
  elif model.get('pooling') == 'first_eos' and tokenizer.end != model['eos']:
    wrong = f'ends a text with {tokenizer.end}, the encoder expects {model["eos"]}'
  elif model.get('pooling') == 'largest' and tokenizer.end != tokenizer.size - 1:
    wrong = (
      f'ends a text with {tokenizer.end}, the encoder expects the largest, {tokenizer.size - 1}'
    )
  else:
    return
  raise ConfigError(
    f'the tokenizer {path!r} {wrong}: it is of another encoder; give the one that came with the '
    'weights, as --tokenizer=FILE'
  )


def digests(files: TokenizerFiles) -> dict[str, str]:
  """Returns the SHA-256 of each file."""
  return {name: hashlib.sha256(data).hexdigest() for name, data in sorted(files.items())}


def write_tokenizer(workdir: pathlib.Path, files: TokenizerFiles) -> None:
  """Writes the tokenizer files of a work directory atomically, in place of any before."""
  if not files:
    return
  workdir.mkdir(parents=True, exist_ok=True)
  with tempfile.TemporaryDirectory(dir=workdir, prefix=f'.{FOLDER}.') as temporary:
    folder = pathlib.Path(temporary) / FOLDER
    for name, data in files.items():
      write_bytes(folder / name, data)
    write_json(folder / DIGESTS, digests(files))
    if (workdir / FOLDER).exists():
      shutil.rmtree(workdir / FOLDER)
    os.rename(folder, workdir / FOLDER)
  synchronise(workdir)


def read_tokenizer(workdir: str | os.PathLike[str]) -> TokenizerFiles:
  """Reads the tokenizer files of a work directory, {} without any; ConfigError if they changed."""
  folder = pathlib.Path(workdir) / FOLDER
  if not folder.is_dir():
    return {}
  files = {file.name: file.read_bytes() for file in sorted(folder.iterdir()) if file.is_file()}
  if files.pop(DIGESTS, None) is not None:
    imported = read_json(folder / DIGESTS, mend='import again')
    for name, digest in imported.items():
      if name not in files or hashlib.sha256(files[name]).hexdigest() != digest:
        change = 'has changed since it was' if name in files else 'is missing of those'
        raise ConfigError(
          f'{os.fspath(folder / name)!r} {change} imported; put it back, or remove {DIGESTS} if '
          'the change is meant'
        )
  return files


def load_tokenizer_of(workdir: str | os.PathLike[str]) -> Tokenizer:
  """Reads the tokenizer of an imported encoder.
  Raises ConfigError if there is no such encoder, or its tokenizer is missing, damaged or another's.
  """
  config = read_config(workdir)
  folder = pathlib.Path(workdir) / FOLDER
  if config.component not in READERS:
    raise ConfigError(
      f'{os.fspath(workdir)!r} holds the component {config.component!r}, which reads no text; '
      f'expected {" or ".join(READERS)}'
    )
  if config.get('tokenizer') == BYTES:
    return load_tokenizer(BYTES)
  if not read_tokenizer(workdir):
    raise ConfigError(
      f'the encoder in {os.fspath(workdir)!r} has no tokenizer; {EXPECTED_TOKENIZER}: copy what '
      f'came with its weights into {os.fspath(folder)!r}'
    )
  tokenizer = load_tokenizer(folder, tried=(folder / DIGESTS).exists())
  check_tokenizer(tokenizer, fields_of(config, 'model'), os.fspath(folder))
  return tokenizer
