"""Configurations: plain trees of numbers and names."""

import difflib
import importlib
from collections.abc import Iterable, Mapping
from typing import Any

from ml_collections import ConfigDict

from mgjax.core.errors import ConfigError

Fields = Mapping[str, Any] | ConfigDict  # which is a mapping in all but name


def flatten(config: Mapping[str, Any], prefix: str = '') -> dict[str, Any]:
  """Maps 'model.dim' to its value, for every leaf of a nested configuration."""
  flat = {}
  for key, value in config.items():
    if isinstance(value, Mapping):
      flat |= flatten(value, f'{prefix}{key}.')
    else:
      flat[f'{prefix}{key}'] = _listed(value)
  return flat


def _listed(value: Any) -> Any:
  """Tuples as lists, at any depth, as JSON gives them back."""
  return [_listed(each) for each in value] if isinstance(value, list | tuple) else value


def did_you_mean(key: str, known: Iterable[str]) -> str:
  """Returns 'unknown key model.dmi; did you mean model.dim?'."""
  close = difflib.get_close_matches(key, list(known), n=1, cutoff=0.5)
  return f'unknown key {key}' + (f'; did you mean {close[0]}?' if close else '')


def differences(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
  """Lists 'model.dim: 64 -> 128' for every leaf that differs between two configurations."""
  old, new = flatten(old), flatten(new)
  return [
    f'{key}: {old.get(key, "absent")!r} -> {new.get(key, "absent")!r}'
    for key in sorted(old.keys() | new.keys())
    if old.get(key) != new.get(key) or (key in old) != (key in new)
  ]


def build(description: Mapping[str, Any], **more: Any) -> Any:
  """Makes the object that a configuration names: `{'class': 'package.module.Class', **fields}`.

  A new module therefore needs no entry in a registry.

  Raises:
    ConfigError: there is no such class in mgjax, or it does not take the fields.
  """
  fields = {key: value for key, value in description.items() if key != 'class'}
  path = description.get('class', '')
  module, _, name = path.rpartition('.')
  if not module.startswith('mgjax.'):
    raise ConfigError(f'class {path!r} is not one of mgjax; expected mgjax.<room>.<file>.<Class>')
  try:
    made = getattr(importlib.import_module(module), name)
  except (ImportError, AttributeError) as error:
    raise ConfigError(f'there is no class {path!r}: {error}') from error
  if not isinstance(made, type):  # files from elsewhere name them, too, and may name any function
    raise ConfigError(f'{path!r} is no class; expected mgjax.<room>.<file>.<Class>')
  try:
    return made(**fields, **more)
  except TypeError as error:
    raise ConfigError(f'{path} does not take what the configuration gives it: {error}') from error
