"""Checks a configuration read from a file, which may be damaged, or edited by hand."""

from collections.abc import Mapping
from typing import Any

from ml_collections import ConfigDict

from mgjax.core.configuration.keys import JSON, Fields, differences
from mgjax.core.configuration.renamed_keys import migrate
from mgjax.core.errors import ConfigError, first_line
from mgjax.core.files import WRONG
from mgjax.training.checkpoints.run_references import DATA, RUNS

# Keys that hold a group of fields, where a configuration has them. Groups of one component alone,
# such as `windows`, are checked by the settings class that reads them.
_GROUPS = ('model', 'train', 'data', 'objective', 'sample', 'lora')
_GROUPS_OF_GROUPS = ('buckets', 'text', 'model.conditionings')
_TEXTS = (*(key for key in (*RUNS, *DATA) if '.' not in key), 'tokenizer')
# Fields of a model that say how it is computed. They may differ from those of its weights.
_FREE = ('dtype', 'attention', 'exchange', 'remat', 'unroll', 'products')
_MAX_DEPTH = 64  # of nested groups: the functions that read a configuration recurse into each
_KINDS = ((dict,), (list, tuple), (str,), (bool,), (int, float))


def parse_config(fields: Fields, name: str, expected: Fields | None) -> ConfigDict:
  """Makes a configuration of the fields of a file, under the keys of this version.

  Args:
    fields: the content of the file.
    name: of the file, for messages.
    expected: the configuration that the newest checkpoint was saved with, if there is one. Its
      fields must be there, with values of the same kind, and the numbers of the model must be
      equal. Without it, only the fields that every component has are checked.

  Raises:
    ConfigError: a field is missing, or has a value of another kind, or another number.
  """
  try:
    if _is_deeper(fields, _MAX_DEPTH):
      raise ValueError('it is nested too deep')
    fields = migrate(fields)
    problem = _first_difference(fields, expected or _example(fields))
    config = ConfigDict(fields)
  except WRONG as wrong:
    problem = first_line(wrong)
    config = ConfigDict()
  if problem:
    raise ConfigError(
      f'{name} is no configuration of launch.train: {problem}; put back a whole copy, or delete it '
      'and start the run again'
    )
  return config


def check_same_model(config: Fields, header: Fields) -> None:
  """Checks that a configuration has the model that the header of its weights describes.

  How the model is computed may differ. Raises ConfigError, which names the fields that differ.
  """
  described = {key: header[key] for key in ('component', 'model') if key in header}
  ours = {key: config.get(key) for key in described}
  changes = differences(migrate(described), ours)
  wrong = [change for change in changes if change.split(':')[0].rpartition('.')[2] not in _FREE]
  if wrong:
    raise ConfigError('; '.join(wrong))


def _is_deeper(value: Any, levels: int) -> bool:
  """Says whether groups and lists are nested in more than a number of levels."""
  children = value.values() if isinstance(value, Mapping) else value
  is_group = isinstance(value, Mapping | list)
  return is_group and (levels == 0 or any(_is_deeper(child, levels - 1) for child in children))


def _example(fields: Fields) -> JSON:
  """Returns a configuration with empty values of the kinds that `fields` must have."""
  example: JSON = {'component': ''}
  example |= {key: {} for key in _GROUPS if key in fields}
  if 'sample' in fields:  # of a flow model
    example |= {'autoencoder': '', 'data': {'fps': 0, 'kind': ''}, 'buckets': {}, 'objective': {}}
    example['model'] = {'conditionings': {}}
  example |= {key: '' for key in _TEXTS if fields.get(key) is not None}
  for name in _GROUPS_OF_GROUPS:
    *outer, key = name.split('.')
    group, kinds = fields, example
    for part in outer:
      group, kinds = group.get(part, {}), kinds.get(part, {})
    if isinstance(group, Mapping) and key in group:
      kinds[key] = {name: {} for name in group[key]} if isinstance(group[key], Mapping) else {}
  return example


def _first_difference(value: object, expected: object, name: str = '') -> str:
  """Says which field is missing or not as expected: the first one, '' if there is none."""
  if expected is None:
    return ''
  kind = next(kind for kind in _KINDS if isinstance(expected, kind))
  if not isinstance(value, kind) or isinstance(value, bool) != isinstance(expected, bool):
    actual = 'nothing' if value is None else type(value).__name__
    return f'{name or "it"} is {actual}, expected {type(expected).__name__}'
  if isinstance(value, int | float) and name.startswith('model.') and value != expected:
    return f'{name} is {value:.9g}, and {expected:.9g} in the checkpoint'
  if isinstance(expected, dict) and isinstance(value, dict):
    for key, field in expected.items():
      if key not in value:
        return f'{name}{"." * bool(name)}{key} is missing'
      if problem := _first_difference(value[key], field, f'{name}{"." * bool(name)}{key}'):
        return problem
  if isinstance(expected, list | tuple) and isinstance(value, list | tuple) and expected:
    is_of_model = name.startswith('model.')
    if is_of_model and len(value) != len(expected):
      return f'{name} has {len(value)} entries, and {len(expected)} in the checkpoint'
    for number, entry in enumerate(value):
      # Entries of other lists may be like any entry of the copy: lists of data grow and shrink.
      allowed = expected[number : number + 1] if is_of_model else expected
      problems = [_first_difference(entry, other, f'{name}.{number}') for other in allowed]
      if all(problems):
        return problems[0]
  return ''
