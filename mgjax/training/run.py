"""A configuration and a work directory to a training run: objects are built here, once."""

import dataclasses
import functools
import logging
import os
import pathlib
from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from ml_collections import ConfigDict

import mgjax
from mgjax.audio import task
from mgjax.audio.codec import task
from mgjax.audio.codec.model import Codec, make_codec
from mgjax.checkpoints.warm_start import start_from
from mgjax.checkpoints.workdir import open_checkpoints, read_config
from mgjax.core.config import did_you_mean, differences, flatten
from mgjax.core.errors import CheckpointError, ConfigError, MgjaxError
from mgjax.core.files import read_json, write_json
from mgjax.core.tree import count_parameters, named_leaves, parameter_table
from mgjax.core.typing import Batch, Metrics, Tree
from mgjax.data.loader import StepIterator, continue_orders, data_hash
from mgjax.data.mixture import REPLACED, describe, make_batches, make_ordered_batches
from mgjax.flow_models.build import make_flow_model, small_inputs
from mgjax.parallel.compiler import compiler_options
from mgjax.parallel.distributed import rows_of_process
from mgjax.parallel.mesh import make_mesh
from mgjax.parallel.shard import make_initialise, make_place
from mgjax.runtime.metrics import reached_step
from mgjax.runtime.report import reported
from mgjax.runtime.session import attempted
from mgjax.tae import task
from mgjax.tae.autoencoder import Autoencoder, make_autoencoder
from mgjax.train.store import write_about
from mgjax.training.accumulation import accumulation, check_batches
from mgjax.training.adversarial import make_two_player_step
from mgjax.training.faults import make_explain
from mgjax.training.guard import make_gate, parameter_norms, reopened
from mgjax.training.loop import Schedule, Tasks, run_loop
from mgjax.training.optimizer import make_run_optimizer, make_run_schedule
from mgjax.training.plateau import learning_rate, make_react
from mgjax.training.spec import Part, init_params
from mgjax.training.state import State, abstract_state, shardings_of, start_opponent, start_state
from mgjax.training.step import Step, make_step
from mgjax.training.validation import make_evaluate
from mgjax.video import task

PARTS = {
  'autoencoder': task.make_part,
  'codec': task.make_part,
  'video': task.make_part,
  'audio': task.make_part,
}
LATENT_CHANNELS = {'video': Autoencoder.latent_channels, 'audio': Codec.latent_channels}
# What may change between a run and its resumption: how it reports, on what it runs and where things
# lie (what lies there is compared with the checkpoint), not what it computes.
FREE = (
  'train.log_every', 'train.save_every', 'train.evaluate_every', 'train.show_every', 'train.keep',
  'train.keep_every', 'train.keep_best', 'train.validation_batches', 'data.threads', 'data.workers',
  'rules', 'autoencoder', 'data.path', 'data.validation_path', 'data.skip_missing', 'train.groups',
)  # fmt: skip
# Of these, what decides about learning rates where those fall with the validation loss.
DECISIVE = ('train.evaluate_every', 'train.validation_batches')
RECORDED = ('jax', 'flax', 'optax', 'orbax-checkpoint', 'grain', 'numpy')

_log = logging.getLogger(__name__)


def make_part(config: ConfigDict, workdir: pathlib.Path) -> Part:
  """Builds the part that `config.part` names.

  Raises:
    ConfigError: there is no such part.
  """
  if config.part not in PARTS:
    raise ConfigError(did_you_mean(config.part, PARTS).replace('key', 'part'))
  return PARTS[config.part](config, workdir)


def train(
  config: ConfigDict,
  workdir: str | os.PathLike[str],
  *,
  stop_at: int | None = None,
  new_data: bool = False,
  spent: float = 0.0,
) -> State:
  """Trains the part that a configuration describes, or goes on with it where it stopped.

  Args:
    config: from `configs/`.
    workdir: of this run; another run with another configuration needs another one.
    stop_at: save and return after this step; a later call goes on from there.
    new_data: go on although the data or the buckets are others: a new order of the data begins at
      the step of the checkpoint, which the next ones record.
    spent: seconds that the process had been there before, for the account of its time.

  Returns:
    The final state.

  Raises:
    ConfigError: the configuration is wrong, or not the one that the work directory was begun with.
    DataError: there is no usable data.
    NonFiniteError: the loss stopped being finite.
    CheckpointError: there are checkpoints and none can be trusted.
  """
  workdir = pathlib.Path(workdir)
  limits = config.train.get('limits', {})
  with attempted(workdir, limits, spent) as attempt:
    save_every = _save_every(config, workdir)
    _claim(config, workdir, new_data)
    attempt.note()
    mesh = make_mesh(config.mesh.to_dict(), config.rules)
    with jax.set_mesh(mesh):
      part = make_part(config, workdir)
    check_batches(config, mesh)
    optimizer = make_run_optimizer(config.optimizer, config.train.steps)
    opponent = part.opponent and make_run_optimizer(part.opponent.optimizer, config.train.steps)
    order = data_hash(describe(part.buckets, config.seed))

    with (
      jax.set_mesh(mesh),
      open_checkpoints(workdir, config.train) as checkpoints,
    ):
      if not max(checkpoints.steps(), default=0) and not checkpoints.aside():
        _check_not_lost(workdir, save_every, os.fspath(checkpoints.directory))
      with attempt.phases.during('restore', compiles=True):
        state, orders = _initial_state(
          config, part, optimizer, opponent, mesh, checkpoints, order, new_data
        )
      shapes = {name: list(leaf.shape) for name, leaf in named_leaves(state.params).items()}
      if jax.process_index() == 0:
        write_json(workdir / 'parameters.json', shapes)
      _log.info('%d parameters, step %d', count_parameters(state.params), int(state.step))
      step = jax.jit(
        _make_step(config, part, optimizer, opponent, accumulation(config, mesh)),
        donate_argnums=0,
        out_shardings=(shardings_of(state), None),
        compiler_options=compiler_options(mesh.devices.flat[0]),
      )
      if part.frozen is not None:
        step = functools.partial(step, frozen=part.frozen)
      host, hosts = rows_of_process(mesh, jax.process_index())
      batches = make_batches(part.buckets, seed=config.seed, host=host, hosts=hosts)
      tasks = Tasks(
        prepare=part.prepare,
        evaluate=make_evaluate(part, config, mesh),
        show=part.show,
        meta=lambda state: _meta(config, part, orders, state),
        react=make_react(config.optimizer, part.opponent and part.opponent.optimizer),
        norms=jax.jit(parameter_norms),
        explain=make_explain(config, part, mesh, workdir, orders[-1][0]),
        flops=part.flops,
      )
      every = {key: config.train[key] for key in Schedule.__dataclass_fields__}
      begin = int(state.step) - orders[-1][0]
      options = {'threads': config.data.threads, 'workers': config.data.get('workers', 0)}
      with StepIterator(batches, begin, **options) as loader, reported(workdir):
        return run_loop(
          state, step, loader, tasks, Schedule(**every),
          mesh=mesh, workdir=workdir, checkpoints=checkpoints, stop_at=stop_at,
          attempt=attempt,
        )  # fmt: skip


def finished(config: ConfigDict, workdir: str | os.PathLike[str]) -> bool:
  """Says whether a run has come to its end, without reading its weights.

  Raises:
    ConfigError: it was begun with another configuration.
  """
  path = pathlib.Path(workdir) / 'config.json'
  steps = open_checkpoints(workdir).steps() if path.exists() else []
  if steps:
    _check_same(read_json(path), config, os.fspath(workdir), new_data=False)
  return bool(steps) and steps[-1] >= config.train.steps


def dry_run(config: ConfigDict, workdir: str | os.PathLike[str]) -> str:
  """Says what a run would train, without allocating or compiling anything.

  Returns:
    A table of parameters by group, and the shapes of one batch of each bucket; where the data or
    the autoencoder are not there yet, a note instead.
  """
  model, inputs, notes = _outline(config)
  shapes = jax.eval_shape(model.init, jax.random.key(0), *inputs)['params']
  lines = [parameter_table(nn.unbox(shapes)), '', *notes]
  try:
    part = make_part(config, pathlib.Path(workdir))
    for bucket in part.buckets:
      sample = make_ordered_batches(dataclasses.replace(bucket, batch_size=1), 1)[0]
      arrays = {
        name: f'{array.dtype}{[bucket.batch_size, *array.shape[1:]]}'
        for name, array in sample.items()
        if name != REPLACED
      }
      lines.append(f'bucket {bucket.name}: {len(bucket.source):,} samples, {arrays}')
  except MgjaxError as error:
    lines.append(f'note: it cannot train yet: {error}')
  return '\n'.join(lines)


def _outline(config: ConfigDict) -> tuple[nn.Module, tuple[Any, ...], list[str]]:
  """Returns the model, small inputs for its `init` and notes, from the configuration alone."""
  if config.part == 'autoencoder':
    model = make_autoencoder(config.model.to_dict())
    return model, (jnp.zeros((1, *model.compression, 3)), jax.random.key(0)), []
  if config.part == 'codec':
    codec = make_codec(config.model.to_dict())
    return codec, task.small_inputs(codec), []
  if config.part not in LATENT_CHANNELS:
    raise ConfigError(did_you_mean(config.part, PARTS).replace('key', 'part'))
  model, notes = make_flow_model(config), []
  try:
    channels = read_config(config.autoencoder).model.latent_channels
  except ConfigError:
    channels = LATENT_CHANNELS[config.part]
    notes = [f'note: no autoencoder at {config.autoencoder!r}; latents of {channels} channels']
  return model, small_inputs(model, channels), notes


def _claim(config: ConfigDict, workdir: pathlib.Path, new_data: bool) -> None:
  """Writes the configuration into the work directory, or checks that it is the one there.

  Without a checkpoint there is nothing to protect: a first attempt may be corrected. With
  `new_data` the data and the buckets may be others.
  """
  path = workdir / 'config.json'
  # Those of the run that is there, wherever this configuration would have its own.
  begun = path.exists() and open_checkpoints(workdir).begun()
  if begun:
    _check_same(read_json(path), config, os.fspath(workdir), new_data)
  if jax.process_index() == 0:
    write_json(path, config.to_dict())
  if jax.process_index() == 0 and not begun:
    write_about(workdir, RECORDED)


def _check_same(before: Mapping[str, Any], config: ConfigDict, where: str, new_data: bool) -> None:
  fixed = [_fixed(fields, new_data) for fields in (before, config.to_dict())]
  if changed := differences(*fixed):
    raise ConfigError(
      f'{where!r} was begun with another configuration: {"; ".join(changed[:5])}'
      f'{" ..." if len(changed) > 5 else ""}; take another --workdir, or the old values'
    )


def _fixed(config: Mapping[str, Any], new_data: bool) -> dict[str, Any]:
  """What a resumption must not change, by name."""
  free = (
    'mesh.',
    'sample.',
    'encode.',
    'train.faults.',
    'train.limits.',
    *(('data.', 'buckets.') if new_data else ()),
  )
  flat = flatten(config)
  falls = flat.get('optimizer.plateau.patience', 0)
  if not falls:  # its other fields say nothing then, and there are runs of before it was a field
    free = (*free, 'optimizer.plateau.')
  flat = {
    key: value
    for key, value in flat.items()
    if not key.startswith(free) and (key not in FREE or (falls and key in DECISIVE))
  }
  flat.setdefault('train.checkpoints', '')  # runs of before it was a field
  if 'data.latents' in flat:  # another place is fine, but not another precision
    flat['data.latents'] = 'read' if flat['data.latents'] else 'encoded on the fly'
  return flat


def _make_step(
  config: ConfigDict, part: Part, optimizer, opponent_optimizer, accumulate: int
) -> Step:
  options = {'seed': config.seed, 'decay': config.train.decay, 'accumulate': accumulate}
  options['gate'] = make_gate(config.train)
  if part.opponent is None:
    step = make_step(part.model, part.objective, optimizer, **options)
  else:
    players = (optimizer, opponent_optimizer)
    step = make_two_player_step(part.model, part.opponent, *players, **options)
  schedule = make_run_schedule(config.optimizer, config.train.steps)

  def step_and_rate(state: State, batch: Batch, frozen: Tree = None) -> tuple[State, Metrics]:
    after, metrics = step(state, batch, frozen)
    return after, metrics | {'learning_rate': learning_rate(state.opt_state, schedule)}

  return step_and_rate


def _initial_state(
  config, part: Part, optimizer, opponent_optimizer, mesh, checkpoints, order: str, new_data: bool
) -> tuple[State, list[tuple[int, str]]]:
  """Returns where to begin, and the orders of the data until then and from then on."""
  init, other = functools.partial(init_params, part), None
  if part.opponent is not None:
    other = functools.partial(init_params, part.opponent), opponent_optimizer
  target = abstract_state(init, optimizer, mesh, other)
  restored = checkpoints.restore(target)
  if restored is not None:
    state, meta = restored
    if config.train.get('checkpoints'):  # a new work directory cannot tell whose they are
      _check_same(meta['config'], config, os.fspath(checkpoints.directory), new_data)
    orders = continue_orders(meta['orders'], int(state.step), order, allow=new_data)
    if part.check is not None:
      part.check(meta['notes'])
    return state.replace(counters=reopened(state.counters, make_gate(config.train))), orders
  key = jax.random.key(config.seed)
  initialise, shardings = make_initialise(init, mesh)
  params, opponent = initialise(key), None
  if part.start is not None:
    place = make_place(jax.eval_shape(init, jax.random.key(0)), mesh)
    params = jax.tree.map(jax.device_put, start_from(part.start(place), params), shardings)
  if other is not None:
    opponent = make_initialise(other[0], mesh)[0](jax.random.fold_in(key, 1))

  def begin(params: Tree, opponent: Tree) -> State:
    against = None if other is None else start_opponent(opponent, opponent_optimizer)
    return start_state(params, optimizer, against)

  return jax.jit(begin, out_shardings=shardings_of(target))(params, opponent), [(0, order)]


def _save_every(config: ConfigDict, workdir: pathlib.Path) -> int:
  """Returns how rarely a run has saved so far or is to save now; 0 for not at all."""
  path = workdir / 'config.json'
  before = read_json(path).get('train', {}).get('save_every') if path.exists() else None
  each = [every for every in (before, config.train.save_every) if every is not None]
  return max(each) if all(each) else 0


def _check_not_lost(workdir: pathlib.Path, save_every: int, where: str) -> None:
  """Raises CheckpointError where a run must have saved and would begin at step 0 all the same."""
  reached = reached_step(workdir)
  if 0 < 2 * save_every < reached:  # whoever saves twice has waited for the first one
    raise CheckpointError(
      f'the metrics in {os.fspath(workdir)!r} have reached step {reached}, but {where} has no '
      'checkpoint after step 0; bring them back, or begin anew in an empty work directory'
    )


def _meta(
  config: ConfigDict, part: Part, orders: list[tuple[int, str]], state: State
) -> dict[str, Any]:
  return {
    'step': int(state.step),
    'config': config.to_dict(),
    'orders': orders,
    'notes': part.notes(state.average) if part.notes else {},
    'version': mgjax.__version__,
  }
