"""Functions on configurations: flattening, comparing, and the hint for an unknown key."""

import difflib
import re
from collections.abc import Iterable, Mapping
from typing import Any

Fields = Mapping[str, Any]  # values by name: of a configuration, a record or a sample
JSON = dict[str, Any]  # the same as an object of JSON, to be changed and written
Sample = dict[str, Any]  # the fields of a data source at an index

# Of whole numbers: steps, sizes and seeds of runs have 32 bits on devices.
LARGEST_INTEGER = 2**31 - 1
LARGEST_SEED = 2**63 - 1  # of noise, see `core/seeds.py`


def flatten(config: Fields, prefix: str = '') -> JSON:
  """Maps 'model.dim' to its value, for every leaf of a nested configuration."""
  flat = {}
  for key, value in config.items():
    if isinstance(value, Mapping):
      flat |= flatten(value, f'{prefix}{key}.')
    else:
      flat[f'{prefix}{key}'] = _listed(value)
  return flat


def _listed(value: object) -> object:
  """Converts tuples to lists at every depth, as a round trip through JSON does."""
  return [_listed(element) for element in value] if isinstance(value, list | tuple) else value


def split_list(text: str) -> list[str]:
  """Splits a text at its commas, but not at commas escaped by a backslash."""
  return [part.replace('\\,', ',') for part in re.split(r'(?<!\\),', text)]


def join_list(parts: Iterable[str]) -> str:
  """Joins parts to a text that `split_list` splits into these parts again."""
  return ','.join(part.replace(',', '\\,') for part in parts)


def did_you_mean(key: str, known: Iterable[str]) -> str:
  """Returns 'unknown key model.dmi; did you mean model.dim?'."""
  close = difflib.get_close_matches(key, list(known), n=1, cutoff=0.5)
  return f'unknown key {key}' + (f'; did you mean {close[0]}?' if close else '')


def differences(old: Fields, new: Fields) -> list[str]:
  """Lists 'model.dim: 64 -> 128' for every leaf that differs between two configurations."""
  old, new = flatten(old), flatten(new)
  return [
    f'{key}: {old.get(key, "absent")!r} -> {new.get(key, "absent")!r}'
    for key in sorted(old.keys() | new.keys())
    if old.get(key) != new.get(key) or (key in old) != (key in new)
  ]
