"""Runs a training: builds everything from the configuration once, restores, and loops."""

import functools
import logging
import os
import pathlib
from collections.abc import Callable
from typing import Any

import jax
from jax.sharding import Mesh
from ml_collections import ConfigDict

import mgjax
from mgjax.checkpoints.resume import check_not_lost, check_same, claim_workdir, save_interval
from mgjax.checkpoints.warm_start import start_from
from mgjax.checkpoints.workdir import open_checkpoints
from mgjax.core.files import write_json
from mgjax.core.renamed_keys import migrate
from mgjax.core.settings import fields_of
from mgjax.core.tree import count_parameters, named_leaves
from mgjax.core.typing import Batch, Key, Metrics, Tree
from mgjax.data.loader import StepIterator, continue_orders, data_hash, without_worlds
from mgjax.data.mixture import describe_data, make_batches
from mgjax.parallel.compiler import compiler_options
from mgjax.parallel.distributed import rows_of_process
from mgjax.parallel.mesh import make_mesh
from mgjax.parallel.shard import Place, make_initialise, make_place
from mgjax.runtime.metrics import reached_step
from mgjax.runtime.report.write import report_at_end
from mgjax.runtime.session import run_session
from mgjax.training.accumulation import accumulation, check_batches
from mgjax.training.adversarial import make_adversarial_step
from mgjax.training.faults import make_explain
from mgjax.training.guard import parameter_norms, reopened
from mgjax.training.loop import Hooks, run_loop
from mgjax.training.optimizer import make_learning_rate, make_optimizer
from mgjax.training.plateau import learning_rate, make_react
from mgjax.training.rates import describe_rates
from mgjax.training.settings import OptimizerSettings, RunSettings, optimizer_settings, run_settings
from mgjax.training.spec import Adversary, TrainSpec, init_params, param_shapes
from mgjax.training.state import (
  State,
  abstract_state,
  shardings_of,
  start_discriminator,
  start_state,
)
from mgjax.training.step import Step, make_step
from mgjax.training.validation import make_evaluate

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
  """Trains the component that a configuration describes, or resumes where it stopped.

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
  settings = run_settings(fields_of(config, 'train'), config.seed)
  rate = optimizer_settings(fields_of(config, 'optimizer'))
  with run_session(workdir, settings.limits, spent) as session:
    interval = save_interval(workdir, settings.save_every)
    claim_workdir(config.to_dict(), workdir, new_data=new_data, packages=RECORDED)
    session.note()
    mesh = make_mesh(fields_of(config, 'mesh'), config.rules)
    with jax.set_mesh(mesh):
      spec = make_spec(config, workdir)
      for line in _describe_rates(spec, rate):
        _log.info('%s', line)
    check_batches(settings, {name: each.batch_size for name, each in config.buckets.items()}, mesh)
    accumulate = accumulation(settings, mesh)
    optimizer = make_optimizer(rate, settings.steps)
    discriminator = spec.discriminator and make_optimizer(
      spec.discriminator.optimizer, settings.steps
    )
    described = describe_data(spec.buckets, settings.seed)

    with (
      jax.set_mesh(mesh),
      open_checkpoints(workdir, settings.checkpoints, settings.keep) as checkpoints,
    ):
      if not max(checkpoints.steps(), default=0) and not checkpoints.aside():
        place = os.fspath(checkpoints.directory)
        check_not_lost(workdir, reached_step(workdir), interval, place)
      with session.phases.during('restore', compiles=True):
        state, orders = _initial_state(
          config, settings, spec, optimizer, discriminator, mesh, checkpoints, described, new_data
        )
      shapes = {name: list(leaf.shape) for name, leaf in named_leaves(state.params).items()}
      if jax.process_index() == 0:
        write_json(workdir / 'parameters.json', shapes)
      _log.info('%d parameters, step %d', count_parameters(state.params), int(state.step))
      step = jax.jit(
        _make_step(settings, rate, spec, optimizer, discriminator, accumulate),
        donate_argnums=0,
        out_shardings=(shardings_of(state), None),
        compiler_options=compiler_options(mesh.devices.flat[0], mesh.size),
      )
      if spec.frozen is not None:
        step = functools.partial(step, frozen=spec.frozen)
      host, hosts = rows_of_process(mesh, jax.process_index())
      batches = make_batches(spec.buckets, seed=settings.seed, host=host, hosts=hosts)
      begin = orders[-1][0]
      hooks = Hooks(
        prepare=spec.prepare,
        evaluate=make_evaluate(spec, mesh, batches=settings.validation_batches),
        show=spec.show,
        meta=lambda state: _meta(config, spec, orders, state),
        react=make_react(rate.plateau, spec.discriminator and spec.discriminator.optimizer.plateau),
        norms=jax.jit(parameter_norms),
        explain=make_explain(
          spec, mesh, workdir, config.to_dict(),
          begin=begin, seed=settings.seed, accumulate=accumulate, rates=rate.rates,
        ),
        flops=spec.flops,
      )  # fmt: skip
      options = {'threads': config.data.threads, 'workers': config.data.get('workers', 0)}
      with (
        StepIterator(batches, int(state.step) - begin, **options) as loader,
        report_at_end(workdir),
      ):
        return run_loop(
          state, step, loader, hooks, settings,
          mesh=mesh, workdir=workdir, checkpoints=checkpoints, stop_at=stop_at, session=session,
        )  # fmt: skip


def _describe_rates(spec: TrainSpec, rate: OptimizerSettings) -> list[str]:
  """Checks rates before anything is allocated; returns what they do."""
  players: list[tuple[TrainSpec | Adversary, OptimizerSettings, str]] = [(spec, rate, '')]
  if spec.discriminator is not None:
    players.append((spec.discriminator, spec.discriminator.optimizer, 'discriminator.'))
  return [
    line
    for player, settings, prefix in players
    if settings.rates
    for line in describe_rates(settings.rates, param_shapes(player), f'{prefix}optimizer.rates')
  ]


def _make_step(
  settings: RunSettings,
  rate: OptimizerSettings,
  spec: TrainSpec,
  optimizer,
  discriminator_optimizer,
  accumulate: int,
) -> Step:
  options = {'seed': settings.seed, 'decay': settings.ema_decay}
  options |= {'accumulate': accumulate, 'guard': settings.guard, 'rates': rate.rates}
  if spec.discriminator is None:
    step = make_step(spec.model, spec.objective, optimizer, **options)
  else:
    both = (optimizer, discriminator_optimizer)
    step = make_adversarial_step(spec.model, spec.discriminator, *both, **options)
  schedule = make_learning_rate(rate, settings.steps)

  def step_and_rate(state: State, batch: Batch, frozen: Tree = None) -> tuple[State, Metrics]:
    after, metrics = step(state, batch, frozen)
    return after, metrics | {'learning_rate': learning_rate(state.opt_state, schedule)}

  return step_and_rate


def _initial_state(
  config: ConfigDict,
  settings: RunSettings,
  spec: TrainSpec,
  optimizer,
  discriminator_optimizer,
  mesh,
  checkpoints,
  described: dict[str, Any],
  new_data: bool,
) -> tuple[State, list[tuple[int, str]]]:
  """Returns where to begin, and the orders of the data until then and from then on."""
  init, other = functools.partial(init_params, spec), None
  if spec.discriminator is not None:
    other = functools.partial(init_params, spec.discriminator), discriminator_optimizer
  target, order = abstract_state(init, optimizer, mesh, other), data_hash(described)
  restored = checkpoints.restore(target)
  if restored is not None:
    state, meta = restored
    if settings.checkpoints:  # a new work directory cannot tell whose they are
      place = os.fspath(checkpoints.directory)
      check_same(migrate(meta['config']), config.to_dict(), place, new_data)
    before = data_hash(without_worlds(described))
    orders = continue_orders(meta['orders'], int(state.step), order, before=before, allow=new_data)
    if spec.check is not None:
      spec.check(meta['notes'])
    return state.replace(counters=reopened(state.counters, settings.guard)), orders
  key = jax.random.key(settings.seed)
  params, discriminator = _first_params(init, spec.start, mesh, key), None
  if spec.discriminator is not None and other is not None:
    against = jax.random.fold_in(key, 1)
    discriminator = _first_params(other[0], spec.discriminator.begin, mesh, against)

  def begin(params: Tree, discriminator: Tree) -> State:
    against = None if other is None else start_discriminator(discriminator, discriminator_optimizer)
    return start_state(params, optimizer, against)

  return jax.jit(begin, out_shardings=shardings_of(target))(params, discriminator), [(0, order)]


def _first_params(
  init: Callable[[Key], Tree], start: Callable[[Place], Tree] | None, mesh: Mesh, key: Key
) -> Tree:
  """Returns parameters as initialised, or as `start` reads them, each in its shards."""
  initialise, shardings = make_initialise(init, mesh)
  params = initialise(key)
  if start is None:
    return params
  place = make_place(jax.eval_shape(init, jax.random.key(0)), mesh)
  return jax.tree.map(jax.device_put, start_from(start(place), params), shardings)


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
