"""Work directories with a damaged side file: a sentence that names it, or as if it were whole."""

import functools
import json
import math
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np

import mgjax
from mgjax.checkpoints.maintenance import list_checkpoints, verify_all
from mgjax.checkpoints.resume import claim_workdir, is_finished, save_interval
from mgjax.checkpoints.workdir import load_params, open_checkpoints, read_config, write_workdir
from mgjax.core.config_files import load_config
from mgjax.core.errors import CheckpointError, ConfigError, MgjaxError
from mgjax.core.files import write_json
from mgjax.core.tree import named_leaves
from mgjax.core.typing import Tree
from mgjax.runtime.goodput import Ledger, read_goodput
from mgjax.runtime.metrics import MetricWriter, reached_step, read_metrics
from mgjax.runtime.phases import Phases
from mgjax.runtime.report.write import read_seconds, write_report
from mgjax.tae.autoencoder import make_autoencoder
from mgjax.workflows.quickstart import earlier_report
from mgjax.workflows.recipe import describe_recipe
from mgjax.workflows.replay import replay
from tests import tiny
from tests.hostile.family import Family, Silent
from tests.hostile.mutations import copy, mutate_bytes, mutate_json, mutate_lines, pick
from tests.random_parameters import random_parameters

STEPS = 8
ABOUT = {'step': 0, 'samples': 216}
NUMBERED = ('metrics.jsonl', 'goodput.jsonl')


def make_run(workdir: Path, **changes: Any) -> Path:
  """A work directory of an autoencoder, as a run leaves it after 8 steps, but for its training."""
  config, params = tiny.autoencoder(**changes), _parameters()
  notes = {'latents': {'mean': [0.5, -1.0, 0.0, 2.0], 'std': [1.0, 2.0, 0.5, 1.5]}}
  write_workdir(config.to_dict(), params, notes, workdir, origin={'order': 'made'})
  with MetricWriter(workdir, tensorboard=False) as writer:
    for step in range(1, STEPS + 1):
      writer.write(step, {'loss': 1 / step, 'gradient_norm': math.nan, 'learning_rate': 1e-4})
      writer.write(step, {'validation/video/loss': 2 / step})
  for attempt in range(3):
    ledger = Ledger(workdir, Phases(spent=attempt))
    for step in range(0, STEPS, 2):
      ledger.note(step)
  for name in NUMBERED:
    (workdir / f'whole_{name}').write_bytes((workdir / name).read_bytes())
  write_json(workdir / 'seconds.json', {'autoencoder': 10.5, 'latents': 3.0})
  shown = {'text': ['a table', 'of two lines'], 'files': ['samples.png', 'samples/000.mp4']}
  write_json(workdir / 'report.json', {'digit': 0.9, 'about': ABOUT, 'shown': shown})
  return workdir


def _seeds(folder: Path) -> list[Path]:
  return [make_run(folder / 'run')]


def _damages(name: str, mutate: Callable) -> Callable:
  def damage(source: Path, rng: np.random.Generator, target: Path) -> None:
    path = copy(source, target) / name
    if rng.random() < 0.03:
      path.unlink()
    else:
      path.write_bytes(mutate(path.read_bytes(), rng))

  return damage


def _mutate_json_lines(data: bytes, rng: np.random.Generator) -> bytes:
  def mutate(line: bytes, rng: np.random.Generator) -> bytes:
    try:
      return mutate_json(line, rng)
    except (ValueError, RecursionError, OverflowError):  # it was damaged before
      return mutate_bytes(line, rng)

  return mutate_lines(data, rng, mutate)


def _parameters() -> Tree:
  model = make_autoencoder(tiny.autoencoder().model.to_dict())
  return random_parameters(model.init, np.zeros((1, 4, 16, 16, 3), np.float32), jax.random.key(0))


def _bits(params: Tree) -> dict[str, bytes]:
  return {name: np.asarray(leaf).tobytes() for name, leaf in named_leaves(params).items()}


@functools.cache
def _expected() -> dict[str, bytes]:
  return _bits(_parameters())


def read_all(workdir: Path) -> None:
  """What a restart, `load`, `evaluate`, `checkpoints list|verify` and `report` read."""
  config = read_config(workdir)
  params, meta = load_params(workdir)
  if config.component != 'autoencoder' or _bits(params) != _expected() or meta['step'] != 0:
    raise Silent('other parameters than were saved')
  if mgjax.load(workdir).model != make_autoencoder(tiny.autoencoder().model.to_dict()):
    raise Silent('another model than was saved')
  checkpoints = open_checkpoints(workdir)
  if any(seen.problem for seen in list_checkpoints(checkpoints)) or any(
    verify_all(checkpoints).values()
  ):
    raise Silent('a checkpoint that nobody touched passes for damaged')
  resume(workdir)
  write_report(workdir)


def resume(workdir: Path) -> None:
  """What a restart does before it restores and until it trains; no line may stop that."""
  config = tiny.autoencoder().to_dict()
  claim_workdir(config, workdir)
  is_finished(config, workdir)
  save_interval(workdir, 3)
  if not 0 <= reached_step(workdir) < 2**53:
    raise Silent('an impossible step')
  with MetricWriter(workdir, tensorboard=False, resume_step=STEPS // 2) as writer:
    writer.write(STEPS // 2 + 1, {'loss': 1.0})
  for line in (workdir / 'metrics.jsonl').read_bytes().splitlines():
    if type(json.loads(line)['step']) is not int:
      raise Silent('a damaged line is left')
  ledger = Ledger(workdir, Phases())
  ledger.begin(STEPS // 2)
  account = read_goodput(workdir)
  if account is None or not all(map(math.isfinite, account.seconds.values())):
    raise Silent('an impossible account')


def _read_config(workdir: Path) -> None:
  """Beside a checkpoint the configuration is never lost; without one there is a sentence."""
  config = tiny.autoencoder().to_dict()
  try:
    read_config(workdir)
    model = mgjax.load(workdir).model
  except ConfigError as error:  # of a value that one may have changed by hand
    if 'put back a whole copy' in str(error):
      raise Silent(f'the copy of the checkpoint does not count: {error}') from error
    raise
  if model != make_autoencoder(config['model']):
    raise Silent('another model than was saved')
  try:
    resume(workdir)
  except ConfigError as error:  # a value of the right kind, which one may have changed by hand
    if 'was begun with another configuration' not in str(error):
      raise
  shutil.rmtree(workdir / 'checkpoints')
  read_config(workdir)


def _read_lines(workdir: Path) -> None:
  try:
    resume(workdir)
    for step, values in read_metrics(workdir):
      if not 0 <= step < 2**53 or not all(isinstance(value, float) for value in values.values()):
        raise Silent(f'{step}: {values}')
    page = write_report(workdir).read_text()
  except MgjaxError as error:
    raise Silent(f'a damaged line stopped a resume or the report: {error}') from error
  if 'validation' not in page and (workdir / 'metrics.jsonl').stat().st_size > 400:
    raise Silent('nothing is left of the report')
  if any(not line.endswith(b'\n') for line in (workdir / 'goodput.jsonl').open('rb')):
    raise Silent('a line is left open')


def _recipe_seeds(folder: Path) -> list[Path]:
  """A recipe of two stages that trains nothing more."""
  workdir = folder / 'recipe'
  make_run(workdir / 'images', train__steps=0)
  stage = {'kind': 'train', 'folder': 'images', 'after': [], 'steps': STEPS, 'name': 'images'}
  encoded = {'kind': 'encode', 'folder': 'latents', 'after': ['images'], 'steps': None}
  stages = [stage, encoded | {'name': 'latents for images'}]
  write_json(workdir / 'recipe.json', {'stages': stages, 'encoded': {'latents for images': 'ab'}})
  write_json(workdir / 'seconds.json', {'images': 10.5, 'latents for images': 3.0})
  return [workdir]


def _read_recipe(workdir: Path) -> None:
  config = tiny.autoencoder(train__steps=0)
  recipe = load_config('digits/recipe')
  recipe.unlock()
  recipe.order, recipe.stages = ('images',), {'images': config}
  describe_recipe(recipe, workdir)
  seconds = read_seconds(workdir)
  if not all(isinstance(each, int | float) and 0 <= each < 2**53 for each in seconds.values()):
    raise Silent(f'{seconds}')
  write_report(workdir)


def _read_report(workdir: Path) -> None:
  found = earlier_report(workdir, ABOUT)
  if found is not None and not all(isinstance(path, Path) for path in found[1]):
    raise Silent(f'{found}')


def _fault_seeds(folder: Path) -> list[Path]:
  config = tiny.autoencoder().to_dict()
  write_json(folder / 'fault' / 'config.json', config)
  samples = [{'index': 3, 'source': 'a.mp4'}]
  leaves = {'batch': {'video': [1.0, 0]}}
  report = {'step': 3, 'first': 'x', 'bucket': 'video', 'samples': samples, 'leaves': leaves}
  write_json(folder / 'fault' / 'report.json', report)
  return [folder / 'fault']


def _damage_checkpoints(source: Path, rng: np.random.Generator, target: Path) -> None:
  """Files are damaged, deleted or emptied, items moved, or the step renamed."""
  copy(source, target)
  folder = target / 'checkpoints'
  match pick(rng, ('file', 'file', 'file', 'rename', 'delete', 'empty', 'item')):
    case 'rename':
      (folder / '0').rename(folder / pick(rng, ('1', '20', '00', '0.corrupt', 'x', '-1', '9' * 30)))
    case 'item':
      item = pick(rng, sorted(path for path in (folder / '0').iterdir() if path.is_dir()))
      shutil.move(item, pick(rng, (target / 'away', item.with_name('x'), item.with_name('meta'))))
    case kind:
      path = pick(rng, sorted(path for path in (folder / '0').rglob('*') if path.is_file()))
      if kind == 'delete':
        path.unlink()
      else:
        path.write_bytes(mutate_bytes(path.read_bytes(), rng) if kind == 'file' else b'')


def _read_checkpoints(workdir: Path) -> None:
  checkpoints = open_checkpoints(workdir)
  try:
    list_checkpoints(checkpoints)
    problems = verify_all(checkpoints)
    params, meta = load_params(workdir)
  except CheckpointError:
    read_config(workdir)
    raise
  if _bits(params) != _expected() or meta['step'] != 0 or list(problems) != [0]:
    raise Silent('other parameters than were saved')


def _family(name: str, read: Callable[[Path], None], seeds=_seeds, mutate=mutate_json) -> Family:
  return Family(name, seeds, _damages(name, mutate), read)


FAMILIES = (
  _family('config.json', _read_config),
  *(_family(name, read_all) for name in ('parameters.json', 'run.json')),
  *(_family(name, _read_lines, mutate=_mutate_json_lines) for name in NUMBERED),
  *(_family(name, _read_recipe, _recipe_seeds) for name in ('recipe.json', 'seconds.json')),
  _family('report.json', _read_report),
  _family('report.json', replay, _fault_seeds)._replace(name='fault report.json'),
  Family('checkpoints', _seeds, _damage_checkpoints, _read_checkpoints),
)
