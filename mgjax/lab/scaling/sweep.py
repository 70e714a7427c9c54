"""A sweep: every arm, a configuration, trained with every seed, and a row of each run.

The work directory has a folder for each run, `<arm>/seed_<n>`, and `sweep.jsonl`, a line for each
run that came to its end:

    {"arm": "deep", "seed": 0, "digest": "93c1...", "steps": 4000, "loss": 0.61,
     "validation_loss": 0.63, "validation_loss_raw": 0.66, "seconds": 812.4, "versions": {...},
     "scores": {...}}

The validation loss is that of averaged parameters, the raw one that of the parameters themselves.
`scores` is what the caller's `evaluate` made of the run, and `about` adds what the caller knows of
an arm. A run that ended with numbers that were not finite has "error" as well, and losses and
scores that are null. The file is replaced as a whole with each row. So whatever kills a sweep, a
run has one row or none, and then its folder knows how far it came.

An arm {"of": "digits/video", "changes": {"sample": {"steps": 8}}} is an earlier run, its weights
with changes of its configuration. It is only evaluated, with each seed, which takes the place of
{seed} in its name.

Several processes may be at one sweep, on one machine or on several that share its disk: each takes
a run that no other one holds.
"""

import dataclasses
import hashlib
import json
import logging
import math
import os
import pathlib
import re
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import numpy as np
from ml_collections import ConfigDict

from mgjax.core.configuration.config_files import load_config
from mgjax.core.configuration.keys import JSON, Fields, did_you_mean, flatten
from mgjax.core.configuration.renamed_keys import added
from mgjax.core.errors import ConfigError, MgjaxError, NonFiniteError, first_line
from mgjax.core.files import read_json_lines, read_optional_json, write_bytes, write_json
from mgjax.core.settings import Count, checked
from mgjax.parallel.distributed import agreed
from mgjax.registry import make_spec
from mgjax.training.checkpoints.find_run import find_run
from mgjax.training.checkpoints.resume import is_finished
from mgjax.training.checkpoints.workdir import read_config
from mgjax.training.monitoring.goodput import read_goodput
from mgjax.training.monitoring.metrics import read_metrics, validation_loss
from mgjax.training.monitoring.workdir_lock import InUseError, hold
from mgjax.training.run import train

FILE = 'sweep.jsonl'
OF = 'of'
# How and where a run is done, which may change between two calls: a row does not depend on it.
FREE = (
  'evaluators.',
  'mesh.',
  'rules',
  'data.threads',
  'data.workers',
  'train.limits.',
  'train.checkpoints',
  'train.save_every',
  'train.show_every',
  'train.keep',
)

_LOSSES = ('loss', 'validation_loss', 'validation_loss_raw')
_PAUSE = 0.2  # seconds until the file of another process is asked for again

Row = JSON
Evaluate = Callable[[pathlib.Path], Fields]

_log = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class _Run:
  arm: str
  seed: int
  config: ConfigDict
  folder: pathlib.Path


def run_sweep(
  arms: Mapping[str, ConfigDict | str],
  seeds: Sequence[int] | Mapping[str, Sequence[int]],
  workdir: str | os.PathLike[str],
  *,
  evaluate: Evaluate | None = None,
  about: Mapping[str, Fields] = {},
) -> bool:
  """Trains every arm with every seed, or resumes where an earlier call stopped.

  A run that has its row is skipped, one that was killed resumes from its checkpoint, and one whose
  numbers are not finite gets a row that says so. You can add arms and seeds later: rows of others
  stay. To evaluate a run again, delete its row; to train it again, delete its folder as well.

  Args:
    arms: name -> configuration, or its name; each seed takes the place of `seed` there.
    seeds: of the runs of all arms, or arm -> its own.
    evaluate: work directory of a finished run -> its scores as JSON can hold them, such as a list
      with a number a prompt; on several processes each calls it. It is called again if it was
      killed, and for runs that an earlier call did not evaluate.
    about: arm -> what else its rows say, as JSON can hold it.

  Returns:
    Whether all is done: False if a signal asked to stop, what is done is saved; or if other
    processes are at the last runs.

  Raises:
    ConfigError: names or seeds cannot be used, or a row was made with another configuration.
    MgjaxError: a run failed; the message names it. Later runs did not start.
  """
  workdir = pathlib.Path(workdir)
  runs = []
  if not arms:
    raise ConfigError('a sweep of no arms; expected one at least')
  for arm, source in arms.items():
    if not re.fullmatch(r'\w[\w.-]*', arm, re.ASCII):
      raise ConfigError(f'{arm!r} is to name an arm and its folder; expected letters, digits, _-.')
    base = load_config(source) if isinstance(source, str) else source
    for seed in _seeds(arm, seeds):
      config = base.copy_and_resolve_references()
      config.seed = seed
      if checkpoints := config.get('train', {}).get('checkpoints'):
        config.train.checkpoints = f'{checkpoints.rstrip("/")}/{arm}/seed_{seed}'
      runs.append(_Run(arm, seed, config, workdir / arm / f'seed_{seed}'))
  rows = _rows(workdir)
  for run in runs:
    row = rows.get((run.arm, run.seed))
    if row is not None and row['digest'] != digest(run.config.to_dict()):
      raise ConfigError(
        f'arm {run.arm!r}, seed {run.seed} has a row of another configuration in '
        f'{os.fspath(workdir / FILE)!r}; give the arm another name, or delete row and folder'
      )
    if OF not in run.config:
      is_finished(run.config.to_dict(), run.folder)  # or of another configuration
  elsewhere = 0
  for number, run in enumerate(runs, 1):
    title = f'run {number} of {len(runs)}, {run.arm}, seed {run.seed}'
    if agreed(_done(workdir, run, evaluate)):
      _log.info('%s: done', title)
      continue
    try:
      with hold(run.folder):
        if agreed(_done(workdir, run, evaluate)):  # since that look
          continue
        _log.info('%s: begins or goes on', title)
        row = _finish(run, evaluate)
        if row is None:
          _log.warning('%s: stopped; the same call goes on', title)
          return False
        named = {'arm': run.arm, 'seed': run.seed, **about.get(run.arm, {})}
        _put(workdir, named | {'digest': digest(run.config.to_dict())} | row)
    except InUseError as error:
      _log.info('%s: passed over, %s', title, error)
      elsewhere += 1
    except MgjaxError as error:
      error.args = (f'arm {run.arm!r}, seed {run.seed}: {error}', *error.args[1:])
      raise
  if elsewhere:
    _log.warning('other processes are at %d runs; all others are done', elsewhere)
  return not elsewhere


def read_rows(workdir: str | os.PathLike[str]) -> list[Row]:
  """Reads the rows of a sweep, in the order in which its runs ended; none if it has not begun."""
  return [row for row, _ in read_json_lines(pathlib.Path(workdir) / FILE, _parsed)]


def _rows(workdir: pathlib.Path) -> dict[tuple[str, int], Row]:
  return {(row['arm'], row['seed']): row for row in read_rows(workdir)}


def _put(workdir: pathlib.Path, row: Row) -> None:
  """Adds a row, or replaces the one of its run, while no other process does."""
  while True:
    try:
      with hold(workdir):
        rows = _rows(workdir) | {(row['arm'], row['seed']): row}
        if jax.process_index() == 0:
          lines = [json.dumps(row, allow_nan=False) + '\n' for row in rows.values()]
          write_bytes(workdir / FILE, ''.join(lines).encode())
        return
    except InUseError:
      time.sleep(_PAUSE)


def digest(config: Fields) -> str:
  """Returns the SHA-256 of a configuration, but for how and where a run is done.

  A key that was added later does not count where it says what runs did before.
  """
  fields = flatten(config)
  for key, usual in added(fields).items():
    if fields.get(key) == usual:
      del fields[key]
  decisive = {key: value for key, value in fields.items() if not key.startswith(FREE)}
  return hashlib.sha256(json.dumps(decisive, sort_keys=True).encode()).hexdigest()


def _seeds(arm: str, seeds: Sequence[int] | Mapping[str, Sequence[int]]) -> list[int]:
  requested = list(seeds[arm] if isinstance(seeds, Mapping) else seeds)
  checked_seeds = [int(checked(Count, seed, 'seed')) for seed in requested]
  if not checked_seeds or len(set(checked_seeds)) < len(checked_seeds):
    raise ConfigError(
      f'arm {arm!r} has the seeds {checked_seeds}; expected one at least, and each once'
    )
  return checked_seeds


def _done(workdir: pathlib.Path, run: _Run, evaluate: Evaluate | None) -> bool:
  row = _rows(workdir).get((run.arm, run.seed))
  return row is not None and (evaluate is None or 'error' in row or row['scores'] is not None)


def _finish(run: _Run, evaluate: Evaluate | None) -> Row | None:
  """Finishes a run; returns its row without its name, None if a signal stopped it."""
  config, folder = run.config, run.folder
  if OF in config:
    if evaluate is None:
      raise ConfigError('a run that was trained before wants samples to be evaluated by')
    _vary(config.to_dict(), folder)
    return {'scores': _plain(evaluate(folder))}
  row: Row = {'steps': config.train.steps, **dict.fromkeys(_LOSSES)}
  scores = None
  failed = {}
  try:
    if not agreed(is_finished(config.to_dict(), folder)):
      if int(train(config, folder, make_spec).step) < config.train.steps:
        return None
    row |= _losses(folder, config.train.steps)
    scores = _plain(evaluate(folder)) if evaluate else None
  except NonFiniteError as error:
    _log.warning('%s', error)
    row |= {'steps': error.step} if error.step is not None else {}
    failed = {'error': first_line(error)}
  spent = read_goodput(folder)
  about = read_optional_json(folder / 'run.json', lambda about: bool(about['versions'])) or {}
  return row | {
    'seconds': round(spent.total - spent.seconds['idle'], 1) if spent else None,
    'versions': about.get('versions'),
    'scores': scores,
    **failed,
  }


def _vary(arm: Fields, folder: pathlib.Path) -> None:
  """Makes a work directory of a run that was trained before, with changes of its configuration."""
  of = find_run(arm[OF].replace('{seed}', str(arm['seed'])))
  changed = _changed(read_config(of).to_dict(), arm.get('changes', {}))
  for path in of.absolute().iterdir():
    if not path.name.startswith(('.', 'config.json', 'evaluation')):
      link = folder / path.name
      link.unlink(missing_ok=True)
      link.symlink_to(path)
  write_json(folder / 'config.json', changed)


def _changed(fields: Mapping[str, Any], changes: Mapping[str, Any], prefix: str = '') -> Any:
  """Returns fields with changes, section by section. ConfigError: one has no such field."""
  if unknown := sorted(set(changes) - set(fields)):
    raise ConfigError(did_you_mean(prefix + unknown[0], [prefix + name for name in fields]))
  return fields | {
    name: _changed(fields[name], value, f'{prefix}{name}.')
    if isinstance(fields[name], dict) and isinstance(value, Mapping)
    else value
    for name, value in changes.items()
  }


def _losses(folder: pathlib.Path, last: int) -> dict[str, float | None]:
  """Returns the losses of the last step and of the validation after it; None if not finite."""
  last_metrics: dict[str, float] = {}
  for step, metrics in read_metrics(folder):
    last_metrics |= metrics if step == last else {}
  raw = validation_loss(last_metrics, 'validation_raw')
  losses = dict(
    zip(_LOSSES, (last_metrics.get('loss'), validation_loss(last_metrics), raw), strict=True)
  )
  return {name: x if x is not None and math.isfinite(x) else None for name, x in losses.items()}


def _plain(scores: Fields) -> JSON:
  """Scores as JSON would give them back, arrays as lists."""
  try:
    text = json.dumps(dict(scores), default=lambda x: np.asarray(x).tolist(), allow_nan=False)
  except (TypeError, ValueError) as error:
    raise ConfigError(
      f'evaluate gave what JSON cannot hold: {first_line(error)}; expected a dictionary of finite '
      'numbers, lists and texts'
    ) from None
  return json.loads(text)


def _parsed(row: Any) -> Row:
  """Returns a row that says all it should; ValueError or others if it does not."""
  right = isinstance(row['arm'], str) and type(row['seed']) is int and 'scores' in row
  if not right or not isinstance(row['digest'], str):
    raise ValueError('not a row of a sweep')
  return row
