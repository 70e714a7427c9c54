"""The speedrun: the cost of a recipe from nothing to a given quality (docs/results/speedrun.md).

A recipe trains all that it uses, in processes of their own with no compiled program kept. What they
take of the processors counts; judging, which comes after them, does not.
"""

import dataclasses
import datetime
import os
import pathlib
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from typing import Any

from mgjax.core.configuration.keys import Fields
from mgjax.core.errors import ConfigError, MgjaxError
from mgjax.core.files import read_json, read_optional_json, write_json
from mgjax.lab.benchmarks.compare import machine
from mgjax.lab.evaluation.quickstart import REPORT
from mgjax.lab.planning.dispatch import Answer
from mgjax.lab.report.tables import markdown

_CHECKOUT = pathlib.Path(__file__).parents[3]


@dataclasses.dataclass(frozen=True)
class Bar:
  """What the mean over seeds must reach: the mean share of videos that are right in some ways."""

  names: tuple[str, ...]
  least: float

  def score(self, report: Mapping[str, Any]) -> float:
    """Returns the score of a model from its judge's report; of several groups, the first one's."""
    scores = next(iter(report.get('groups', {'': report}).values()))['alignment']
    return sum(scores[name] for name in self.names) / len(self.names)


BARS = {
  'digits': Bar(('all',), 0.95),
  'solids': Bar(('colour', 'shape', 'motion', 'camera'), 0.65),  # what its first recipe reached
}


def race(config: Mapping[str, Any], flags: Sequence[str], seeds: int, out: str = '') -> Answer:
  """Runs a recipe from scratch with the seeds 0, 1, ..., and returns its row.

  Args:
    config: a recipe that ends with samples and the judge of a synthetic dataset
      (`configs/quickstart.py`).
    flags: of `launch.train`, which make this configuration.
    seeds: the number of seeds.
    out: file to which each finished seed is written; the same call resumes with the next one.

  Raises:
    ConfigError: the configuration is no such recipe, or `out` is of another speedrun.
    MgjaxError: a run failed.
  """
  order = list(config.get('order', ()))
  judge = config['stages'][order[-1]].get('judge') if order else None
  if judge not in BARS:
    raise ConfigError(
      f'a speedrun wants a recipe that ends with the judge of {" or ".join(BARS)}, as '
      'configs/quickstart.py and configs/quickstart.py:solids; this one has none of them'
    )
  bar = BARS[judge]
  about = {'flags': list(flags), 'machine': machine()}
  record: dict[str, Any] = {}
  if out:
    record = (
      read_optional_json(pathlib.Path(out), lambda content: content['seeds'] is not None) or {}
    )
  if record and {name: record[name] for name in about} != about:
    settings = f'{" ".join(record["flags"])} on {record["machine"]}'
    raise ConfigError(f'--out={out} is of another speedrun, {settings}; give another file')
  steps = sum(config['stages'][name].get('train', {}).get('steps', 0) for name in order)
  rows = list(record.get('seeds', []))
  numbers = {**record, **about, 'bar': dataclasses.asdict(bar), 'steps': steps, 'seeds': rows}
  for seed in range(len(rows), seeds):
    rows.append({'seed': seed, **_run(config, flags, seed, bar)})
    numbers |= {'date': f'{datetime.date.today()}', 'commit': _commit()}
    if out:
      write_json(out, numbers)
  return Answer(describe(numbers), numbers)


def describe(numbers: Fields) -> str:
  """Returns the row of docs/results/speedrun.md, with its header."""
  rows, bar = numbers['seeds'], numbers['bar']
  spent, scores = ([row[name] for row in rows] for name in ('processor_seconds', 'score'))
  mean = sum(scores) / len(rows)
  reached = 'reached' if mean >= bar['least'] else 'missed'
  cells = {
    'date': numbers['date'],
    'recipe': ' '.join(numbers['flags']),
    'steps': f'{numbers["steps"]:,}',
    'processor seconds': f'{sum(spent) / len(rows):,.0f} ({min(spent):,.0f} to {max(spent):,.0f})',
    f'{" + ".join(bar["names"])} >= {bar["least"]:g}': (
      f'{mean:.3f} {reached} ({", ".join(f"{score:.3f}" for score in scores)})'
    ),
    'commit': numbers['commit'],
    'machine': numbers['machine'],
  }
  return markdown([[*cells], [*cells.values()]])


def _run(config: Fields, flags: Sequence[str], seed: int, bar: Bar) -> dict[str, float]:
  order, stages = config['order'], config['stages']
  seeded = [f'--config.stages.{name}.seed={seed}' for name in order if 'seed' in stages[name]]
  trained = f'--config.order={tuple(order[:-1])}'
  with tempfile.TemporaryDirectory(prefix='mgjax_race_') as folder:
    train = [*flags, *seeded, f'--workdir={folder}/run']
    began = time.monotonic()
    before = _of_children()
    _train([*train, trained], folder, seed)
    spent = {'processor_seconds': _of_children() - before, 'seconds': time.monotonic() - began}
    _train(train, folder, seed)
    report = read_json(pathlib.Path(folder, 'run', REPORT), mend='run the speedrun again')
  return {**{name: round(value, 1) for name, value in spent.items()}, 'score': bar.score(report)}


def _train(words: Sequence[str], folder: str, seed: int) -> None:
  command = [sys.executable, '-m', 'launch.train', *words]
  cold = {**os.environ, 'XDG_CACHE_HOME': f'{folder}/cache'}
  cold.pop('JAX_COMPILATION_CACHE_DIR', None)
  if code := subprocess.run(command, env=cold, stdout=sys.stderr, check=False).returncode:
    raise MgjaxError(f'seed {seed}: launch.train ended with {code}; it said why above')


def _of_children() -> float:
  used = resource.getrusage(resource.RUSAGE_CHILDREN)
  return used.ru_utime + used.ru_stime


def _commit() -> str:
  command = ['git', '-C', f'{_CHECKOUT}', 'rev-parse', '--short=8', 'HEAD']
  return subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()
