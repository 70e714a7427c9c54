"""A recipe: stages of training, each from the weights of an earlier one (Movie Gen §3.2.2, §3.3).

A recipe is a configuration with `stages`, name -> configuration, and their `order`. In a stage,
`start_from` and `autoencoder` may name an earlier stage instead of a work directory. `data.latents`
without a slash names a folder of the recipe. The stage's data are encoded into it before the stage
trains, and stages of the same shapes may share it. A stage with `backtranslation`, whose `editor`
may be an earlier stage too, makes its own data. A stage of the component 'average' averages the
stages that it names in `of`, uniformly, by `weights` or `greedy`. One of the component 'samples'
samples the stage `of` and judges the result (`lab/evaluation/quickstart.py`). Everything lies in
one directory, a folder a stage.
"""

import copy
import dataclasses
import functools
import hashlib
import json
import logging
import os
import pathlib
import shutil
import time
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
from ml_collections import ConfigDict

from mgjax.apps.dry_run import dry_run
from mgjax.apps.encode import encode
from mgjax.apps.pairs.backtranslation import backtranslate
from mgjax.apps.weights.average_runs import REPORT, AverageCandidate, average_runs
from mgjax.core.configuration.keys import JSON, Fields, did_you_mean
from mgjax.core.errors import ConfigError, MgjaxError
from mgjax.core.files import read_optional_json, write_json
from mgjax.lab.evaluation.quickstart import is_judged, judge_samples
from mgjax.parallel.distributed import agreed
from mgjax.registry import make_spec
from mgjax.training.checkpoints.resume import is_finished
from mgjax.training.checkpoints.workdir import open_checkpoints
from mgjax.training.monitoring.progress import in_stage
from mgjax.training.monitoring.workdir_lock import hold
from mgjax.training.run import train

RECIPE = 'recipe.json'  # what is done of what leaves no checkpoint
SECONDS = 'seconds.json'  # what each stage took
POINTERS = ('start_from', 'autoencoder')
# kinds of stages
TRAIN = 'train'
ENCODE = 'encode'
AVERAGE = 'average'
SAMPLES = 'samples'
BACKTRANSLATION = 'backtranslation'  # of a stage whose latents are pairs that a model makes
EDITOR = f'{BACKTRANSLATION}.editor'
# Pointers to a stage of the same component, and what another one cannot do.
OF_ONE_COMPONENT = {'start_from': 'cannot start from', EDITOR: 'cannot have its pairs made by'}
CONTENT = ('autoencoder', 'data', 'buckets', 'encode', BACKTRANSLATION)  # what latents depend on

_log = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class Stage:
  """One thing to do: its kind, its configuration with every path in its place, where it writes.

  `after` are the names of the stages that it builds on, `allowed` is what may differ from what a
  stage was begun with: `new_data` and `new_rate` of `train`.
  """

  name: str
  kind: str
  config: ConfigDict
  workdir: pathlib.Path
  after: tuple[str, ...] = ()
  allowed: Mapping[str, bool] = dataclasses.field(default_factory=dict)

  @property
  def digest(self) -> str:
    """Of the fields that an encoding depends on."""
    known = self.config.to_dict()
    fields = {name: known[name] for name in CONTENT if name in known}
    return hashlib.sha256(json.dumps(fields, sort_keys=True).encode()).hexdigest()


def plan_stages(
  config: Mapping[str, Any], workdir: str | os.PathLike[str], **allowed: bool
) -> list[Stage]:
  """Returns the stages of a recipe, a configuration with `stages` and `order`, in order.

  `allowed` are `new_data` and `new_rate` of every stage that trains. Raises ConfigError if a stage
  builds on one that does not come before it, or there is no such stage.
  """
  workdir = pathlib.Path(workdir)
  planned = []
  order = list(config.get('order', ()))
  if not order:
    raise ConfigError('a recipe needs stages and their order; see configs/digits/recipe.py')
  stages = config['stages']
  for position, name in enumerate(order):
    if name not in stages:
      raise ConfigError(f'order names the stage {name!r}: {did_you_mean(name, stages)}')
    if name in order[:position]:
      raise ConfigError(f'order names the stage {name!r} twice; give the second one another name')
    stage = copy.deepcopy(stages[name])
    earlier = order[:position]
    kind = stage['component']
    if kind in _CHECKS:
      after = _CHECKS[kind](stage, name, earlier, stages)
      planned.append(Stage(name, kind, ConfigDict(stage), workdir / name, after))
      continue
    point = functools.partial(_point, stage, name, earlier, stages, workdir)
    pointers = {key: point(key) for key in POINTERS}
    after = tuple(filter(None, pointers.values()))
    latents = stage.get('data', {}).get('latents') or ''
    if latents and '/' not in latents:
      if latents in stages:
        raise ConfigError(f'stage {name!r}: data.latents = {latents!r} is the name of a stage')
      for data in (stage['data'], *stage['data'].get('sources', {}).values()):
        folder = data.get('latents') or ''
        if folder and '/' not in folder:  # of this stage, or encoded for an earlier one
          data['latents'] = os.fspath(workdir / folder)
      editor = point(EDITOR) if BACKTRANSLATION in stage else None
      encoder = tuple(filter(None, [pointers['autoencoder'], editor]))
      encoded_path = workdir / latents
      encoding = Stage(f'{latents} for {name}', ENCODE, ConfigDict(stage), encoded_path, encoder)
      if encoding.digest not in (other.digest for other in planned if other.kind == ENCODE):
        planned.append(encoding)
    planned.append(Stage(name, TRAIN, ConfigDict(stage), workdir / name, after, allowed))
  return planned


def _point(
  stage: JSON,
  name: str,
  earlier: list[str],
  stages: Fields,
  workdir: pathlib.Path,
  key: str,
) -> str | None:
  """Makes a field that names a stage its work directory, and returns the name."""
  section, _, field = key.rpartition('.')
  fields = stage[section] if section else stage
  other = fields.get(field) or ''
  if not isinstance(other, str) or other not in stages:
    return None
  if other not in earlier:
    raise ConfigError(
      f'stage {name!r}: {key} = {other!r} does not come before it, but {earlier} do; '
      'change the order, or give the path of a work directory'
    )
  component = _component(stages, other)
  if key in OF_ONE_COMPONENT and component != stage['component']:
    raise ConfigError(
      f'stage {name!r} of the component {stage["component"]!r} {OF_ONE_COMPONENT[key]} {other!r}, '
      f'which is of the component {component!r}'
    )
  fields[field] = os.fspath(workdir / other)
  return other


def _check_averaged(
  stage: Fields, name: str, earlier: list[str], stages: Fields
) -> tuple[str, ...]:
  averaged = list(stage['of'])
  if not averaged or not set(averaged) <= set(earlier):
    raise ConfigError(
      f'stage {name!r} averages {averaged}; expected one or more of {earlier}, which come before it'
    )
  if len({_component(stages, other) for other in averaged}) > 1:
    raise ConfigError(f'stage {name!r} averages {averaged}, which are of different components')
  return tuple(averaged)


def _check_sampled(stage: Fields, name: str, earlier: list[str], stages: Fields) -> tuple[str, ...]:
  del stages
  if stage['of'] not in earlier:
    raise ConfigError(f'stage {name!r} samples {stage["of"]!r}; expected one of {earlier}')
  return (stage['of'],)


_CHECKS = {AVERAGE: _check_averaged, SAMPLES: _check_sampled}


def _component(stages: Fields, name: str) -> str:
  """Returns the component that a stage leaves a model of."""
  stage = stages[name]
  averaged = stage['component'] == AVERAGE
  return _component(stages, stage['of'][0]) if averaged else stage['component']


def run_recipe(config: Fields, workdir: str | os.PathLike[str], **allowed: bool) -> bool:
  """Runs all stages of a recipe, or goes on with it where it stopped.

  What is finished is passed over at once; a stage that was stopped resumes as `train` does, with
  its `new_data` and `new_rate`.

  Returns:
    Whether all is done: False if a signal asked to stop, what is done is saved.

  Raises:
    ConfigError: another process runs in the work directory.
    MgjaxError: of a stage, whose name it tells; the stages after it did not begin.
  """
  workdir = pathlib.Path(workdir)
  stages = plan_stages(config, workdir, **allowed)
  with hold(workdir):
    return _run_stages(stages, workdir)


def _run_stages(stages: list[Stage], workdir: pathlib.Path) -> bool:
  log, seconds = _Log(workdir), _read_seconds(workdir)
  for number, stage in enumerate(stages, 1):
    title = f'stage {number} of {len(stages)}: {stage.name}'
    began = time.monotonic()
    try:
      if agreed(log.done(stage)):
        _log.info('%s is done', title)
        continue
      _log.info('%s%s', title, f', on {" and ".join(stage.after)}' if stage.after else '')
      with in_stage(number, len(stages)):
        try:
          ended = KINDS[stage.kind].work(stage)
        finally:
          # To what earlier sessions of it took.
          spent = seconds.get(stage.name, 0.0) + time.monotonic() - began
          seconds[stage.name] = round(spent, 1)
          if jax.process_index() == 0:
            write_json(workdir / SECONDS, seconds)
    except MgjaxError as error:
      error.args = (f'stage {stage.name!r}: {error}', *error.args[1:])
      raise
    if not ended:
      _log.warning('%s is stopped; the same command goes on', title)
      return False
    log.note(stage)
  return True


def _read_seconds(workdir: pathlib.Path) -> dict[str, float]:
  """Reads the seconds of each stage so far; {} for a damaged file, with a warning."""

  def right(seconds: Any) -> bool:
    return all(
      type(duration) in (int, float) and 0 <= duration < 2**53 for duration in seconds.values()
    )

  return read_optional_json(workdir / SECONDS, right) or {}


def _train(stage: Stage) -> bool:
  return (
    int(train(stage.config, stage.workdir, make_spec, **stage.allowed).step)
    >= stage.config.train.steps
  )


def _encode(stage: Stage) -> bool:
  config = stage.config.to_dict()
  if BACKTRANSLATION in config:
    return all(result.finished for result in backtranslate(config, stage.workdir).values())
  return encode(stage.config, stage.workdir)


def _average(stage: Stage) -> bool:
  shutil.rmtree(stage.workdir, ignore_errors=True)  # half of what an earlier session made
  runs = [AverageCandidate(os.fspath(stage.workdir.parent / name)) for name in stage.config.of]
  weights = list(stage.config.get('weights') or ()) or None
  averaged = average_runs(
    runs, stage.workdir, weights=weights, greedy=stage.config.get('greedy', False)
  )
  _log.info('%s', averaged.table())
  return True


def _samples(stage: Stage) -> bool:
  judge_samples(stage.config.to_dict(), stage.workdir.parent)
  return True


class _Kind(NamedTuple):
  """What does a stage of one kind, and whether its files say that nothing is left to do.

  `work` returns whether it came to its end; `done` raises ConfigError if something else was done.
  """

  work: Callable[[Stage], bool]
  done: Callable[[Stage], bool]


KINDS = {
  TRAIN: _Kind(
    _train, lambda stage: is_finished(stage.config.to_dict(), stage.workdir, **stage.allowed)
  ),
  ENCODE: _Kind(_encode, lambda stage: stage.workdir.is_dir()),
  AVERAGE: _Kind(_average, lambda stage: (stage.workdir / REPORT).exists()),
  SAMPLES: _Kind(_samples, lambda stage: is_judged(stage.config.to_dict(), stage.workdir.parent)),
}


class _Log:
  """Knows what of a recipe is done."""

  def __init__(self, workdir: pathlib.Path):
    self._path = workdir / RECIPE
    # Without it what is encoded is looked at again, and found to be there.
    right = lambda known: all(isinstance(digest, str) for digest in known['encoded'].values())  # noqa: E731
    self._encoded = (read_optional_json(self._path, right) or {}).get('encoded', {})

  def done(self, stage: Stage) -> bool:
    """Says whether there is nothing left to do; raises ConfigError if something else was done."""
    noted = stage.kind != ENCODE or self._encoded.get(stage.name) == stage.digest
    return noted and KINDS[stage.kind].done(stage)

  def note(self, stage: Stage) -> None:
    """Remembers that a stage is done, where its files alone do not say so at once."""
    if stage.kind == ENCODE:
      self._encoded[stage.name] = stage.digest
      if jax.process_index() == 0:
        write_json(self._path, {'encoded': self._encoded})


def heartbeat(config: Mapping[str, Any]) -> int:
  """Returns `train.limits.heartbeat` of a run, or the longest of a recipe's stages; 0 if unset."""
  parts = config['stages'].values() if 'stages' in config else [config]
  limits = [(part.get('train') or {}).get('limits') or {} for part in parts]
  return max((limit.get('heartbeat', 0) for limit in limits), default=0)


def describe_recipe(
  config: Mapping[str, Any], workdir: str | os.PathLike[str], **allowed: bool
) -> str:
  """Describes a recipe's stages and their progress, without allocating or compiling anything.

  Raises ConfigError as `plan_stages`, or if a stage was begun with another configuration.
  """
  stages = plan_stages(config, workdir, **allowed)
  paragraphs = []
  first_stages = {}  # line -> the first stage with it
  log = _Log(pathlib.Path(workdir))
  for number, stage in enumerate(stages, 1):
    lines = [f'stage {number} of {len(stages)}, {stage.name}']
    lines[0] += f', on {" and ".join(stage.after)}' if stage.after else ''
    done = log.done(stage)
    if stage.kind == TRAIN:
      steps = open_checkpoints(stage.workdir).steps() if stage.workdir.exists() else []
      progress = f'at step {steps[-1]:,} of' if steps else 'to do,'
      lines[0] += ': done' if done else f': {progress} {stage.config.train.steps:,} steps'
      table = dry_run(stage.config, stage.workdir).splitlines()
      total = next(index for index, line in enumerate(table) if line.startswith('total'))
      lines.append(f'  {table[total]}')
      notes = [line for line in table[total + 1 :] if line]
      lines += [f'  {line}' for line in notes if line not in first_stages]
      if again := dict.fromkeys(first_stages[line] for line in notes if line in first_stages):
        count = sum(map(first_stages.__contains__, notes))
        lines.append(f'  {count} line(s) more, as of {" and ".join(again)}')
      first_stages |= {line: stage.name for line in notes if line not in first_stages}
    else:
      lines[0] += ': done' if done else ': to do'
    paragraphs.append('\n'.join(lines))
  return '\n'.join(paragraphs)
