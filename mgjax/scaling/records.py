"""Records of runs, whoever trained them: .csv or .jsonl of sizes, tokens or FLOPs, and losses."""

import collections
import math
import os
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from mgjax.core.errors import ConfigError, DataError, printable
from mgjax.core.files import parse_json
from mgjax.evaluation.suites.tables import read_csv, read_text
from mgjax.scaling.law import FLOPS
from mgjax.scaling.parametric import Runs

HEADER = 'parameters,tokens,loss'
# What columns are called, here and in published tables.
_SIZE = ('parameters', 'params', 'size', 'n', 'model size')
_TOKENS = ('tokens', 'd', 'training tokens')
_COMPUTE = ('flops', 'compute', 'c', 'training flop', 'training flops')
_LOSS = ('validation_loss', 'loss')
_ARM = ('recipe', 'arm', 'model')


def read_arms(path: str | os.PathLike[str], flops: float = FLOPS) -> dict[str, Runs]:
  """Reads the runs of a file, by arm; one arm '' where the file names none.

  A run has its size, its loss, and its tokens or its FLOPs, of which D = C / (k N) follows. Where
  it has all of them, its size is C / (k D): parameters as the work counts them, with attention in
  it, so that the runs of a budget are of one budget.
  Names of columns may be those of published tables, as 'Model Size' and 'Training FLOP'.

  Args:
    path: a .csv with a header, or a .jsonl.
    flops: k of C = k N D.

  Raises:
    DataError: it cannot be read, or a row lacks one of these.
  """
  rows = _rows(path)
  arms: dict[str, list[tuple[float, float, float]]] = collections.defaultdict(list)
  for number, row in enumerate(rows, 1):
    where = f'{printable(os.fspath(path))}, row {number}'
    size, loss = _number(row, _SIZE, where), _number(row, _LOSS, where)
    if any(name in row for name in _TOKENS):
      tokens = _number(row, _TOKENS, where)
      if any(name in row for name in _COMPUTE):
        size = _number(row, _COMPUTE, where) / (flops * tokens)
    else:
      tokens = _number(row, _COMPUTE, where, (*_TOKENS, *_COMPUTE)) / (flops * size)
    arm = next((str(row[name]) for name in _ARM if row.get(name) is not None), '')
    arms[arm].append((size, tokens, loss))
  return {arm: Runs(*map(np.array, zip(*each, strict=True))) for arm, each in arms.items()}


def choose_arm(arms: Mapping[str, Runs], name: str, flag: str) -> Runs:
  """Returns the runs of an arm; of a single one whatever it is called.

  Raises:
    ConfigError: there is none of this name, or several and no name.
  """
  if name in arms:
    return arms[name]
  if not name and len(arms) == 1:
    return next(iter(arms.values()))
  known = ', '.join(map(printable, arms))
  raise ConfigError(f'--{flag}={printable(name)}: expected one of the arms {known}')


def _rows(path: str | os.PathLike[str]) -> Sequence[Mapping[str, Any]]:
  if pathlib.Path(path).suffix.lower() == '.csv':
    return read_csv(path, HEADER)
  lines = [line for line in read_text(path).split('\n') if line.strip()]
  if not lines:
    raise DataError(f'{path}: has no runs; write an object a line, with {HEADER}')
  mend = f'write an object a line, with {HEADER}'
  found = [
    parse_json(line, f'{path}, line {number}', error=DataError, mend=mend)
    for number, line in enumerate(lines, 1)
  ]
  for number, row in enumerate(found, 1):
    if not isinstance(row, dict):
      raise DataError(f'{path}, line {number}: is no object; {mend}')
  return [{str(name).lower(): value for name, value in row.items()} for row in found]


def _number(
  row: Mapping[str, Any], names: Sequence[str], where: str, told: Sequence[str] = ()
) -> float:
  for name in names:
    if name in row:
      try:
        number = float(row[name])
      except (TypeError, ValueError):
        number = math.nan
      if not (math.isfinite(number) and number > 0):
        raise DataError(
          f'{where}: {name} is {printable(row[name])!r}; expected a number above 0, or leave the '
          'row out'
        )
      return number
  has = ', '.join(map(printable, row))
  raise DataError(f'{where}: has no {" or ".join(told or names)} but {has}; add it, or rename one')
