"""A configuration and a work directory to a training run: objects are built here, once."""

import functools
import logging
import os
import pathlib
from collections.abc import Callable, Mapping
from typing import Any

import jax
from ml_collections import ConfigDict

import mgjax
from mgjax.checkpoints.warm_start import start_from
from mgjax.checkpoints.workdir import open_checkpoints, read_config, write_about
from mgjax.core.config import differences, flatten
from mgjax.core.errors import CheckpointError, ConfigError
from mgjax.core.files import write_json
from mgjax.core.renamed_keys import migrate
from mgjax.core.tree import count_parameters, named_leaves
from mgjax.core.typing import Batch, Metrics, Tree
from mgjax.data.loader import StepIterator, continue_orders, data_hash
from mgjax.data.mixture import describe_data, make_batches
from mgjax.parallel.compiler import compiler_options
from mgjax.parallel.distributed import rows_of_process
from mgjax.parallel.mesh import make_mesh
from mgjax.parallel.shard import make_initialise, make_place
from mgjax.runtime.metrics import reached_step
from mgjax.runtime.report import report_at_end
from mgjax.runtime.session import run_session
from mgjax.training.accumulation import accumulation, check_batches
from mgjax.training.adversarial import make_adversarial_step
from mgjax.training.faults import make_explain
from mgjax.training.guard import make_guard, parameter_norms, reopened
from mgjax.training.loop import Cadence, Hooks, run_loop
from mgjax.training.optimizer import make_run_learning_rate, make_run_optimizer
from mgjax.training.plateau import learning_rate, make_react
from mgjax.training.spec import TrainSpec, init_params
from mgjax.training.state import (
  State,
  abstract_state,
  shardings_of,
  start_discriminator,
  start_state,
)
from mgjax.training.step import Step, make_step
from mgjax.training.validation import make_evaluate

# What may change between a run and its resumption: how it reports, on what it runs and where things
# lie (what lies there is compared with the checkpoint), not what it computes.
FREE = (
  'train.log_every', 'train.save_every', 'train.evaluate_every', 'train.show_every', 'train.keep',
  'train.keep_every', 'train.keep_best', 'train.validation_batches', 'data.threads', 'data.workers',
  'rules', 'autoencoder', 'data.path', 'data.validation_path', 'data.skip_missing', 'train.device_groups',
)  # fmt: skip
# Of these, what decides about learning rates where those fall with the validation loss.
DECISIVE = ('train.evaluate_every', 'train.validation_batches')
MakeSpec = Callable[[ConfigDict, pathlib.Path], TrainSpec]

RECORDED = ('jax', 'flax', 'optax', 'orbax-checkpoint', 'grain', 'numpy')

_log = logging.getLogger(__name__)


def train(
  config: ConfigDict,
  workdir: str | os.PathLike[str],
  make_spec: MakeSpec,
  *,
  stop_at: int | None = None,
  new_data: bool = False,
  spent: float = 0.0,
) -> State:
  """Trains the part that a configuration describes, or goes on with it where it stopped.

  Args:
    config: from `configs/`.
    workdir: of this run; another run with another configuration needs another one.
    make_spec: of the component that is trained, `(config, workdir) -> TrainSpec`.
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
  with run_session(workdir, limits, spent) as attempt:
    save_every = _save_every(config, workdir)
    _claim(config, workdir, new_data)
    attempt.note()
    mesh = make_mesh(config.mesh.to_dict(), config.rules)
    with jax.set_mesh(mesh):
      spec = make_spec(config, workdir)
    check_batches(config, mesh)
    optimizer = make_run_optimizer(config.optimizer, config.train.steps)
    discriminator = spec.discriminator and make_run_optimizer(
      spec.discriminator.optimizer, config.train.steps
    )
    order = data_hash(describe_data(spec.buckets, config.seed))

    with (
      jax.set_mesh(mesh),
      open_checkpoints(workdir, config.train) as checkpoints,
    ):
      if not max(checkpoints.steps(), default=0) and not checkpoints.aside():
        _check_not_lost(workdir, save_every, os.fspath(checkpoints.directory))
      with attempt.phases.during('restore', compiles=True):
        state, orders = _initial_state(
          config, spec, optimizer, discriminator, mesh, checkpoints, order, new_data
        )
      shapes = {name: list(leaf.shape) for name, leaf in named_leaves(state.params).items()}
      if jax.process_index() == 0:
        write_json(workdir / 'parameters.json', shapes)
      _log.info('%d parameters, step %d', count_parameters(state.params), int(state.step))
      step = jax.jit(
        _make_step(config, spec, optimizer, discriminator, accumulation(config, mesh)),
        donate_argnums=0,
        out_shardings=(shardings_of(state), None),
        compiler_options=compiler_options(mesh.devices.flat[0]),
      )
      if spec.frozen is not None:
        step = functools.partial(step, frozen=spec.frozen)
      host, hosts = rows_of_process(mesh, jax.process_index())
      batches = make_batches(spec.buckets, seed=config.seed, host=host, hosts=hosts)
      tasks = Hooks(
        prepare=spec.prepare,
        evaluate=make_evaluate(spec, config, mesh),
        show=spec.show,
        meta=lambda state: _meta(config, spec, orders, state),
        react=make_react(config.optimizer, spec.discriminator and spec.discriminator.optimizer),
        norms=jax.jit(parameter_norms),
        explain=make_explain(config, spec, mesh, workdir, orders[-1][0]),
        flops=spec.flops,
      )
      every = {key: config.train[key] for key in Cadence.__dataclass_fields__}
      begin = int(state.step) - orders[-1][0]
      options = {'threads': config.data.threads, 'workers': config.data.get('workers', 0)}
      with StepIterator(batches, begin, **options) as loader, report_at_end(workdir):
        return run_loop(
          state, step, loader, tasks, Cadence(**every),
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
    _check_same(read_config(workdir).to_dict(), config, os.fspath(workdir), new_data=False)
  return bool(steps) and steps[-1] >= config.train.steps


def _claim(config: ConfigDict, workdir: pathlib.Path, new_data: bool) -> None:
  """Writes the configuration into the work directory, or checks that it is the one there.

  Without a checkpoint there is nothing to protect: a first attempt may be corrected. With
  `new_data` the data and the buckets may be others.
  """
  path = workdir / 'config.json'
  # Those of the run that is there, wherever this configuration would have its own.
  begun = path.exists() and open_checkpoints(workdir).begun()
  if begun:
    _check_same(read_config(workdir).to_dict(), config, os.fspath(workdir), new_data)
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
  config: ConfigDict, spec: TrainSpec, optimizer, discriminator_optimizer, accumulate: int
) -> Step:
  options = {'seed': config.seed, 'decay': config.train.ema_decay, 'accumulate': accumulate}
  options['guard'] = make_guard(config.train)
  if spec.discriminator is None:
    step = make_step(spec.model, spec.objective, optimizer, **options)
  else:
    players = (optimizer, discriminator_optimizer)
    step = make_adversarial_step(spec.model, spec.discriminator, *players, **options)
  schedule = make_run_learning_rate(config.optimizer, config.train.steps)

  def step_and_rate(state: State, batch: Batch, frozen: Tree = None) -> tuple[State, Metrics]:
    after, metrics = step(state, batch, frozen)
    return after, metrics | {'learning_rate': learning_rate(state.opt_state, schedule)}

  return step_and_rate


def _initial_state(
  config,
  spec: TrainSpec,
  optimizer,
  discriminator_optimizer,
  mesh,
  checkpoints,
  order: str,
  new_data: bool,
) -> tuple[State, list[tuple[int, str]]]:
  """Returns where to begin, and the orders of the data until then and from then on."""
  init, other = functools.partial(init_params, spec), None
  if spec.discriminator is not None:
    other = functools.partial(init_params, spec.discriminator), discriminator_optimizer
  target = abstract_state(init, optimizer, mesh, other)
  restored = checkpoints.restore(target)
  if restored is not None:
    state, meta = restored
    if config.train.get('checkpoints'):  # a new work directory cannot tell whose they are
      _check_same(migrate(meta['config']), config, os.fspath(checkpoints.directory), new_data)
    orders = continue_orders(meta['orders'], int(state.step), order, allow=new_data)
    if spec.check is not None:
      spec.check(meta['notes'])
    return state.replace(counters=reopened(state.counters, make_guard(config.train))), orders
  key = jax.random.key(config.seed)
  initialise, shardings = make_initialise(init, mesh)
  params, discriminator = initialise(key), None
  if spec.start is not None:
    place = make_place(jax.eval_shape(init, jax.random.key(0)), mesh)
    params = jax.tree.map(jax.device_put, start_from(spec.start(place), params), shardings)
  if other is not None:
    discriminator = make_initialise(other[0], mesh)[0](jax.random.fold_in(key, 1))

  def begin(params: Tree, discriminator: Tree) -> State:
    against = None if other is None else start_discriminator(discriminator, discriminator_optimizer)
    return start_state(params, optimizer, against)

  return jax.jit(begin, out_shardings=shardings_of(target))(params, discriminator), [(0, order)]


def _save_every(config: ConfigDict, workdir: pathlib.Path) -> int:
  """Returns how rarely a run has saved so far or is to save now; 0 for not at all."""
  path = workdir / 'config.json'
  before = read_config(workdir).get('train', {}).get('save_every') if path.exists() else None
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
  config: ConfigDict, spec: TrainSpec, orders: list[tuple[int, str]], state: State
) -> dict[str, Any]:
  return {
    'step': int(state.step),
    'config': config.to_dict(),
    'orders': orders,
    'notes': spec.notes(state.average) if spec.notes else {},
    'version': mgjax.__version__,
  }
