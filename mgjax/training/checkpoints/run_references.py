"""The fields of configurations that name runs and files, and whether what they name is fixed.

A published run whose name ends with a SHA-256 shall always make the same pixels. So each place that
its configuration names, and that sampling reads, has a SHA-256 too or lies in the run's folder.
Whatever its name, a published run is untrusted data: it leads to no other folder and to no other
host, unless you set `ALLOW`, as the flag --allow_outside does.
"""

import math
import os
import pathlib
import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

from mgjax.core.configuration.keys import Fields
from mgjax.core.errors import ConfigError
from mgjax.core.run_names import RunName, is_name, read_name

ALLOW = 'MGJAX_ALLOW_OUTSIDE'  # of the environment
LIST = 'mgjax.json'  # of the files of a published run
WEIGHTS = 'weights.safetensors'  # of a published run, whose `train.checkpoints` nobody reads then


class RunField(NamedTuple):
  """What a field of a configuration names.

  Attributes:
    split: the field's text -> what stands before the first name, then each name and what follows.
    compared: whether who reads it compares it with a fingerprint that the weights recorded, or it
      serves training alone: a path is as good as a SHA-256 then.
  """

  split: Callable[[str], list[str]]
  compared: bool


def _one(text: str) -> list[str]:
  return ['', text, '']


# In 'name', 'subtree=name' and 'subtree=name:subtree,subtree=name'.
_SOURCE = re.compile(r'(?:^|(?<=[=,]))([a-z][a-z0-9+.-]+:/[^,]*?)(?=(?::[^/\d:,][^:,]*)?(?:,|$))')


def _sources(text: str) -> list[str]:
  return _SOURCE.split(text)


def _expert(text: str) -> list[str]:
  name, at, time = text.rpartition('@')
  return ['', name, at + time] if _is_number(time) else ['', text, '']


def _adapters(text: str) -> list[str]:
  parts = ['']
  for adapter in re.split(r'(?<!\\),', text):
    name, colon, weight = adapter.rpartition(':')
    parts += [name, f'{colon}{weight},'] if _is_number(weight) and colon else [adapter, ',']
  return [*parts[:-1], parts[-1].removesuffix(',')]


def _is_number(text: str) -> bool:
  try:
    return math.isfinite(float(text))
  except ValueError:
    return False


# Field -> what it names; '*' is any name, and fields of a stage or an arm are as those of a run.
RUNS = {
  'autoencoder': RunField(_one, compared=True),
  'start_from': RunField(_sources, compared=True),
  'vision': RunField(_one, compared=True),
  'text.*.workdir': RunField(_one, compared=True),
  'objective.*.teacher': RunField(_one, compared=True),
  'pairs.temporal_autoencoder': RunField(_one, compared=True),
  'preferences.model': RunField(_one, compared=True),
  'backtranslation.editor': RunField(_one, compared=True),
  'backtranslation.recogniser': RunField(_one, compared=True),
  'sample.expert': RunField(_expert, compared=False),
  'sample.lora': RunField(_adapters, compared=False),
  'sample.expert_lora': RunField(_adapters, compared=False),
}
# Fields that name data, stores and programs. Who samples a run reads none of them, but for
# checkpoints where there is no `WEIGHTS`, and stored embeddings, which pinned runs do without.
DATA = (
  'data.path',
  'data.validation_path',
  'data.latents',
  'data.sources.*.path',
  'data.sources.*.validation_path',
  'data.sources.*.latents',
  'embeddings',
  'perceptual_weights',
  'preferences.votes',
  'train.checkpoints',
  'measure.*.python',
  'measure.*.weights',
  'keep.seeds',
)


def run_field_of(path: tuple[str, ...]) -> RunField | None:
  """Returns the run field at a path of keys; None if the field names no runs."""
  for key, run_field in RUNS.items():
    pattern = key.split('.')
    tail = path[-len(pattern) :]
    if len(tail) == len(pattern) and all(p in ('*', t) for p, t in zip(pattern, tail, strict=True)):
      return run_field
  return None


def names_in(
  value: Any, path: tuple[str, ...] = (), run_field: RunField | None = None
) -> Iterator[tuple[str, str, RunField]]:
  """Yields field, name or path of a run, and its `RunField`, of all in a configuration."""
  if isinstance(value, Mapping):
    for key, part in value.items():
      yield from names_in(part, (*path, key), run_field or run_field_of((*path, key)))
  elif isinstance(value, list | tuple):
    for entry in value:
      yield from names_in(entry, path, run_field)
  elif isinstance(value, str) and value and run_field is not None:
    for name in run_field.split(value)[1::2]:
      yield '.'.join(path), name, run_field


def is_pinned(name: str | os.PathLike[str]) -> bool:
  """Says whether something is the name of a published run, with a SHA-256 that fixes it."""
  return is_name(name) and bool(read_name(name).digest)


def check_fixed(config: Fields, has: Callable[[str], bool], run: str) -> None:
  """Checks that a published run's configuration names nothing that may change.

  `has` says whether there is something by a name in the run's folder; `run` is for the message.
  Raises ConfigError, which names the field.
  """
  for key, name, run_field in names_in(config):
    if is_name(name):
      if not is_pinned(name):
        raise _unfixed(run, key, name, 'a name with the SHA-256 that launch.weights push prints')
    elif not run_field.compared and not _is_inside(name, has):
      raise _unfixed(run, key, name, 'a published run with its SHA-256, or what lies in the folder')
  checkpoints = (config.get('train') or {}).get('checkpoints')
  if checkpoints and not has(WEIGHTS):
    raise _unfixed(run, 'train.checkpoints', checkpoints, f'a folder with {WEIGHTS}')


def is_published(folder: pathlib.Path) -> bool:
  """Says whether a folder was fetched, or lies in one that was, and `ALLOW` is not set."""
  listed = any(os.path.lexists(parent / LIST) for parent in (folder, *folder.parents))
  return listed and os.environ.get(ALLOW, '') in ('', '0')


def lies_within(folder: pathlib.Path, path: pathlib.Path) -> bool:
  """Says whether a path exists and leads into a folder, also where it is a link."""
  # `path.exists()` raises if the path is too long for the file system.
  return os.path.exists(path) and path.resolve().is_relative_to(folder.resolve())


def may_lead_to(name: str, origin: RunName | None) -> bool:
  """Says whether a published run from `origin`, if that is known, may name another one.

  It may where the name has a SHA-256, on the Hub or at the host, or bucket, that it came from.
  """
  if not is_pinned(name):
    return False
  address = read_name(name).place
  own = origin.place if origin else ''
  return address.startswith('hf://') or _host(address) == _host(own)


def _host(address: str) -> tuple[str, str]:
  scheme, _, rest = address.partition('://')
  return scheme, rest.partition('/')[0]


def _is_inside(path: str, has: Callable[[str], bool]) -> bool:
  part = pathlib.PurePath(path).name
  return part not in ('', '..') and has(part)


def _unfixed(run: str, key: str, value: str, expected: str) -> ConfigError:
  return ConfigError(
    f'{run}: its config.json names {key} = {value!r:.200}, which can change although the run is '
    f'pinned; expected {expected}. Put that into config.json, or copy what it names into the '
    "run's folder, and publish it with launch.weights push"
  )
