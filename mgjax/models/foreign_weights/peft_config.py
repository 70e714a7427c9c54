r"""What peft's settings say of LoRA: `adapter_config.json`, and the headers of diffusers' files.

  W + s B A,   s = alpha / r, or alpha / sqrt(r) with `use_rslora`

r and alpha are `r` and `lora_alpha`, unless a pattern p of `rank_pattern` or `alpha_pattern` fits
the name of the map: the first with re.match('(.*\.)?(p)$', name), as `peft.utils.get_pattern_key`.
Every field that changes what A and B mean is read here or refused by its name, and so is one that
is not known and says something.
"""

import json
import math
import re
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from mgjax.core.configuration.keys import Fields
from mgjax.core.errors import ConfigError
from mgjax.models.foreign_weights.numbers import is_number

_KNOWN = (
  *('r', 'lora_alpha', 'rank_pattern', 'alpha_pattern', 'use_rslora', 'use_dora'),
  *('init_lora_weights', 'target_modules', 'exclude_modules', 'layers_to_transform'),
  # These say how training went, or how the base model lies in memory.
  *('auto_mapping', 'base_model_name_or_path', 'corda_config', 'eva_config', 'fan_in_fan_out'),
  *('inference_mode', 'loftq_config', 'lora_dropout', 'lora_ga_config', 'megatron_core'),
  *('peft_version', 'qalora_group_size', 'revision', 'runtime_config', 'task_type'),
)
_DEFAULTS = {'peft_type': 'LORA', 'bias': 'none'}
_PLAIN = ('none', 'true', 'false', 'gaussian', 'eva', 'orthogonal', 'mica')  # leave the base alone
_TYPES = {  # of fields that are not numbers
  'rank_pattern': (dict, 'an object of names and numbers'),
  'alpha_pattern': (dict, 'an object of names and numbers'),
  'target_modules': (str | list, 'a list of names, or a regular expression'),
  'exclude_modules': (str | list, 'a list of names, or a regular expression'),
  'layers_to_transform': (int | list, 'a list of numbers of layers'),
}
_LAYER = re.compile(r'.*?\.[^.]*\.(\d+)\.')
_BRANCHES = re.compile(r'[^\w.^$-]')
_SECONDS = 10
_MATCH = (
  'import json, re, sys; patterns, names = json.load(sys.stdin); '
  'json.dump([[bool(re.match(p, name)) for name in names] for p in patterns], sys.stdout)'
)


def check_settings(settings: Fields, what: str) -> None:
  """Raises ConfigError, which begins with `what`, if a field says what is not read here."""
  for field, value in {'peft_type': None, **settings}.items():  # the kind is told first
    says_nothing = value in (None, False, '', [], {}) or value == _DEFAULTS.get(field)
    if field not in _KNOWN and not says_nothing:
      raise ConfigError(
        f'{what} has {field!s:.60} = {value!r:.60}, which is not read; expected plain LoRA or DoRA'
      )
  for field, (kind, expected) in _TYPES.items():
    if not isinstance(value := settings.get(field), kind | None):
      raise ConfigError(f'{what} has {field} = {value!r:.60}; expected {expected}')
  for field in ('use_dora', 'use_rslora'):
    if (value := settings.get(field)) not in (None, True, False):
      raise ConfigError(f'{what} has {field} = {value!r:.60}; expected true or false')
  if str(start := settings.get('init_lora_weights')).lower() not in _PLAIN:
    raise ConfigError(
      f'{what} has init_lora_weights = {start!r:.60}, which changes the base model too; save the '
      'adapters with path_initial_model_for_weight_conversion, which makes them plain ones'
    )


def scales_of_maps(
  settings: Fields, maps: Mapping[str, Mapping[str, np.ndarray]], what: str
) -> dict[str, float]:
  """Returns how many times B A counts in each map.

  Args:
    settings: of peft.
    maps: their tensors, by the names that peft has.
    what: how messages begin.

  Raises:
    ConfigError: settings are of another type, or not what tensors show; a pattern is no regular
      expression or takes long; peft would leave a map out.
  """
  names = list(maps)
  for field, name in _left_out(settings, names, what):
    raise ConfigError(
      f'{what} has {field} = {settings[field]!r:.200}, which leaves out {name}, and adapters of '
      'it; delete one of them'
    )
  ranks = _of_maps(settings, 'rank_pattern', 'r', names, what)
  alphas = _of_maps(settings, 'alpha_pattern', 'lora_alpha', names, what)
  is_dora, is_stable = (bool(settings.get(field)) for field in ('use_dora', 'use_rslora'))
  scales = {}
  for name, r, alpha in zip(names, ranks, alphas, strict=True):
    if not (is_number(r) and is_number(alpha)):
      raise ConfigError(
        f'{what} has r = {r!r:.60} and lora_alpha = {alpha!r:.60} of {name}; expected finite '
        'numbers'
      )
    parts = maps[name]
    rank = len(parts['A'])
    actual = {'r': rank, 'use_dora': 'magnitude' in parts}
    if 'alpha' in parts:
      actual['lora_alpha'] = parts['alpha'].item()
    stated = {'r': r, 'use_dora': is_dora, 'lora_alpha': alpha}
    if wrong := [field for field in actual if stated[field] != actual[field]]:
      raise ConfigError(
        f'{what} has {wrong[0]} = {stated[wrong[0]]!r} of {name}, whose tensors have '
        f'{actual[wrong[0]]!r}; expected the same'
      )
    scales[name] = alpha / (math.sqrt(rank) if is_stable else rank)
  return scales


def _left_out(settings: Fields, names: Sequence[str], what: str) -> Iterator[tuple[str, str]]:
  """Yields maps that settings do not reach, with the field: peft would drop their tensors."""
  for field, is_included in (('target_modules', True), ('exclude_modules', False)):
    value = settings.get(field)
    if not value or str(value).lower() == 'all-linear':
      continue
    if isinstance(value, str):
      (reached,) = _matches(r'(?:{})\Z', [value], names, f'{what} has {field}')
    else:
      ends = tuple(f'.{module}' for module in value)
      reached = [f'.{name}'.endswith(ends) for name in names]
    yield from (
      (field, n) for n, is_reached in zip(names, reached, strict=True) if is_reached != is_included
    )
  field = 'layers_to_transform'
  if (layers := settings.get(field)) not in (None, []):
    layers = layers if isinstance(layers, list) else [layers]
    exact = settings.get('target_modules') or ()  # of these peft takes every layer
    for name in names:
      layer = _LAYER.match(name)
      if name not in [*exact] and not (layer and int(layer[1]) in layers):
        yield field, name


def _of_maps(
  settings: Fields, pattern: str, field: str, names: Sequence[str], what: str
) -> list[Any]:
  """Returns for each map the value of the first pattern that fits, or else of the field."""
  several = settings.get(pattern) or {}
  values = [*several.values(), settings.get(field)]
  fits = _matches(r'(.*\.)?({})$', [*several], names, f'{what} has {pattern}')
  columns = zip(*fits, [True] * len(names), strict=True)
  return [values[column.index(True)] for column in columns]


def _matches(
  form: str, patterns: Sequence[str], names: Sequence[str], what: str
) -> list[list[bool]]:
  """Returns for each regular expression, put into `form`, which names it matches.

  An expression from a file may take exponential time, and only the end of a process stops it.
  """
  expressions = [form.format(pattern) for pattern in patterns]
  if not _BRANCHES.search(''.join(patterns)):
    return [[bool(re.match(pattern, name)) for name in names] for pattern in expressions]
  words = [sys.executable, '-I', '-c', _MATCH]
  data = json.dumps([expressions, names]).encode()
  try:
    ended = subprocess.run(words, input=data, capture_output=True, check=True, timeout=_SECONDS)
  except subprocess.SubprocessError as error:
    raise ConfigError(
      f'{what} = {patterns!r:.200}, which are no regular expressions or take more than '
      f'{_SECONDS} s; expected names of maps'
    ) from error
  return json.loads(ended.stdout)
