"""Records of runs, also of other software: .csv or .jsonl of sizes, tokens or FLOPs, and losses."""

import collections
import dataclasses
import math
import os
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

import numpy as np

from mgjax.core.configuration.keys import JSON, Fields
from mgjax.core.errors import ConfigError, DataError, printable
from mgjax.core.files import parse_json
from mgjax.core.typing import Float
from mgjax.lab.evaluation.suites.tables import read_csv, read_text
from mgjax.lab.scaling.law import FLOPS
from mgjax.lab.scaling.parametric import Runs

HEADER = 'parameters,tokens,loss'
# What columns are called, here and in published tables.
_SIZE = ('parameters', 'params', 'size', 'n', 'model size')
_TOKENS = ('tokens', 'd', 'training tokens')
_COMPUTE = ('flops', 'compute', 'c', 'training flop', 'training flops')
_LOSS = ('validation_loss', 'loss')
_ARM = ('recipe', 'arm', 'model')
_RATE = 'learning_rate'
_RUN = 'run'
_LIMITS = (1e-30, 1e40)  # of any number: products and powers of these are floats
_Runs = TypeVar('_Runs')


@dataclasses.dataclass(frozen=True)
class Records:
  """Runs of an arm, with their learning rates, None where a run does not say; C = `flops` N D."""

  runs: Runs
  rates: Float[np.ndarray, 'r'] | None = None
  flops: float = FLOPS

  @property
  def compute(self) -> Float[np.ndarray, 'r']:
    """Returns C of every run."""
    return self.flops * np.asarray(self.runs.size) * np.asarray(self.runs.tokens)

  def keep(self, selection: np.ndarray) -> 'Records':
    """Returns a selection of the runs, by their indices or by a mask."""
    indices = np.arange(len(self.runs.loss))[selection]
    return Records(
      Runs(*(np.asarray(column)[indices] for column in self.runs)),
      None if self.rates is None else self.rates[indices],
      self.flops,
    )

  def rate_sweeps(self) -> list[list[tuple[float, list[int]]]]:
    """Returns the sweeps of the learning rate: of each the rates, ascending, with their runs.

    Runs of one size and as many tokens with several rates are a sweep.
    """
    if self.rates is None:
      return []
    sweeps: dict[Any, dict[float, list[int]]] = collections.defaultdict(dict)
    for index, (size, tokens, rate) in enumerate(
      zip(self.runs.size, self.runs.tokens, self.rates, strict=True)
    ):
      sweeps[size, tokens].setdefault(float(rate), []).append(index)
    return [sorted(runs.items()) for runs in sweeps.values() if len(runs) > 1]

  def at_best_rates(self) -> 'Records':
    """Returns the runs, from a sweep of the learning rate only those with its best rate."""
    selection = np.ones(len(self.runs.loss), bool)
    for sweep in self.rate_sweeps():
      best = min(self.runs.loss[runs].mean() for _, runs in sweep)
      for _, runs in sweep:
        selection[runs] = self.runs.loss[runs].mean() == best
    return self.keep(selection)


def as_records(runs: Runs | Records) -> Records:
  """Returns the records of runs of which no more is known."""
  return runs if isinstance(runs, Records) else Records(runs)


def read_records(path: str | os.PathLike[str], flops: float = FLOPS) -> dict[str, Records]:
  """Reads the runs of a .csv or .jsonl, by arm; one arm '' where the file names none.

  A run has its size, its loss, and its tokens or its FLOPs, of which D = C / (k N) follows. Where
  it has all of them, its size is C / (k D): parameters as the work counts them, with attention in
  it, so that the runs of a budget are of one budget. Names of columns may be those of published
  tables, as 'Model Size' and 'Training FLOP'. It may have its `learning_rate`. Of rows with the
  same name in the column `run` the last is its end. Raises DataError for what cannot be read.
  """
  arms: dict[str, list[JSON]] = collections.defaultdict(list)
  for number, row in enumerate(read_rows(path), 1):
    arm = next((str(row[name]) for name in _ARM if row.get(name) is not None), '')
    arms[arm].append(_run(row, flops, f'{printable(os.fspath(path))}, row {number}'))
  return {arm: _records(_ends(rows), flops) for arm, rows in arms.items()}


def choose_arm(arms: Mapping[str, _Runs], name: str, flag: str) -> _Runs:
  """Returns the runs of an arm; of a single one whatever it is called; ConfigError for others."""
  if name in arms:
    return arms[name]
  if not name and len(arms) == 1:
    return next(iter(arms.values()))
  known = ', '.join(printable(arm)[:80] for arm in arms)
  raise ConfigError(f'--{flag}={printable(name):.80}: expected one of the arms {known:.1000}')


def _run(row: Mapping[str, Any], flops: float, where: str) -> dict[str, Any]:
  """Reads a run's fields by the names of `Records`, and its name."""
  fields: dict[str, Any] = {'size': _number(row, _SIZE, where), 'loss': _number(row, _LOSS, where)}
  if any(name in row for name in _TOKENS):
    fields['tokens'] = _number(row, _TOKENS, where)
    if any(name in row for name in _COMPUTE):
      fields['size'] = _number(row, _COMPUTE, where) / (flops * fields['tokens'])
  else:
    compute = _number(row, _COMPUTE, where, (*_TOKENS, *_COMPUTE))
    fields['tokens'] = compute / (flops * fields['size'])
  if row.get(_RATE) not in (None, ''):
    fields['rate'] = _number(row, (_RATE,), where)
  return {**fields, 'run': row.get(_RUN)}


def _ends(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
  """Keeps the last of the rows with the same name."""
  last_rows: dict[Any, dict[str, Any]] = {}
  for number, row in enumerate(sorted(rows, key=lambda row: row['tokens'])):
    last_rows[number if row['run'] in (None, '') else str(row['run'])] = row
  last_ids = {id(row) for row in last_rows.values()}
  return [row for row in rows if id(row) in last_ids]


def _records(runs: Sequence[JSON], flops: float) -> Records:
  size, tokens, loss = (np.array([run[name] for run in runs]) for name in Runs._fields)
  has_rates = all('rate' in run for run in runs)
  rates = np.array([run['rate'] for run in runs]) if has_rates else None
  return Records(Runs(size, tokens, loss), rates, flops)


def read_rows(path: str | os.PathLike[str]) -> Sequence[Mapping[str, Any]]:
  """Reads the rows of a .csv or a .jsonl unchanged, with column names in lower case."""
  if pathlib.Path(path).suffix.lower() == '.csv':
    return read_csv(path, HEADER)
  lines = [line for line in read_text(path).split('\n') if line.strip()]
  if not lines:
    raise DataError(f'{path}: has no runs; write an object a line, with {HEADER}')
  mend = f'write an object a line, with {HEADER}'
  rows = [
    parse_json(line, f'{path}, line {number}', error=DataError, mend=mend)
    for number, line in enumerate(lines, 1)
  ]
  for number, row in enumerate(rows, 1):
    if not isinstance(row, dict):
      raise DataError(f'{path}, line {number}: is no object; {mend}')
  return [{str(name).lower(): value for name, value in row.items()} for row in rows]


def have_sizes(rows: Sequence[Fields]) -> bool:
  """Says whether rows tell tokens or operations, so that a law can be fitted to them."""
  return any(name in row for row in rows for name in (*_TOKENS, *_COMPUTE))


def _number(
  row: Mapping[str, Any], names: Sequence[str], where: str, expected: Sequence[str] = ()
) -> float:
  for name in names:
    if name in row:
      try:
        number = float(row[name])
      except (TypeError, ValueError):
        number = math.nan
      if not _LIMITS[0] <= number <= _LIMITS[1]:
        raise DataError(
          f'{where}: {name} is {printable(row[name])!r:.80}; expected a number above 0, from '
          f'{_LIMITS[0]:g} to {_LIMITS[1]:g}, or leave the row out'
        )
      return number
  has = ', '.join(map(printable, row))
  raise DataError(
    f'{where}: has no {" or ".join(expected or names)} but {has}; add it, or rename one'
  )
