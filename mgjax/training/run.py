"""Runs training from a configuration to the last checkpoint, or resumes it.

`train` prepares, in this order: the work directory, the mesh, the model and its data, the state
(restored or new), the compiled step, and the loop. `run_loop` is the loop: batch, step, metrics,
validation, samples, checkpoint, until the schedule or a signal ends it. Both are the same for every
component; `make_spec` makes the parts of one (`training/spec.py`).
"""

import contextlib
import dataclasses
import functools
import logging
import os
import pathlib
from collections.abc import Callable, Sequence

import jax
from jax.sharding import Mesh
from ml_collections import ConfigDict

from mgjax.core.configuration.keys import JSON
from mgjax.core.configuration.renamed_keys import migrate
from mgjax.core.files import write_json
from mgjax.core.settings import fields_of
from mgjax.core.tree import count_parameters, named_leaves
from mgjax.core.typing import Batch, Key, Metrics, Tree
from mgjax.core.version import __version__
from mgjax.data.batch_order import describe_data, make_batches
from mgjax.data.loader import StepIterator, continue_orders, data_hash, without_worlds
from mgjax.parallel.compiler import compiler_options
from mgjax.parallel.distributed import rows_of_process
from mgjax.parallel.mesh import make_mesh
from mgjax.parallel.shard import Place, make_initialise, make_place, put_batch
from mgjax.training.adversarial import make_adversarial_step
from mgjax.training.checkpoints.manager import Checkpoints
from mgjax.training.checkpoints.published import pinned
from mgjax.training.checkpoints.resume import (
  changed_rates,
  check_not_lost,
  check_same,
  claim_workdir,
  save_interval,
)
from mgjax.training.checkpoints.warm_start import start_from
from mgjax.training.checkpoints.workdir import open_checkpoints
from mgjax.training.guard import parameter_norms, reopened
from mgjax.training.log_window import LogWindow
from mgjax.training.monitoring.metrics import reached_step, validation_loss
from mgjax.training.monitoring.progress import Progress
from mgjax.training.monitoring.session import Session, run_session, signals_only
from mgjax.training.monitoring.trackers import RunLog, Tracker, make_trackers
from mgjax.training.non_finite import check_state, naming_samples
from mgjax.training.optimizers.optimizer import make_learning_rate, make_optimizer
from mgjax.training.optimizers.plateau import learning_rate, make_react, restarted
from mgjax.training.optimizers.rates import describe_rates
from mgjax.training.settings import OptimizerSettings, RunSettings, optimizer_settings, run_settings
from mgjax.training.spec import Callbacks, TrainSpec, init_params, param_shapes
from mgjax.training.state import (
  State,
  abstract_state,
  shardings_of,
  start_discriminator,
  start_state,
)
from mgjax.training.step import Frozen, Step, accumulation, check_batches, make_step
from mgjax.training.validation import make_evaluate

MakeSpec = Callable[[ConfigDict, pathlib.Path], TrainSpec]
Orders = list[tuple[int, str]]  # (step, hash): from which step on the data came in which order

_RECORDED = ('jax', 'flax', 'optax', 'orbax-checkpoint', 'grain', 'numpy')

_log = logging.getLogger(__name__)


def train(
  config: ConfigDict,
  workdir: str | os.PathLike[str],
  make_spec: MakeSpec,
  *,
  stop_at: int | None = None,
  new_data: bool = False,
  new_rate: bool = False,
  spent: float = 0.0,
  trackers: Sequence[Tracker] = (),
) -> State:
  """Trains the component that a configuration describes, or resumes; returns the final state.

  Args:
    config: from `configs/`.
    make_spec: of the component that is trained, `(config, workdir) -> TrainSpec`.
    stop_at: save and return after this step; a later call resumes from there.
    new_data: resume although the data or the buckets have changed. A new order of the data starts
      at the step of the checkpoint, and later checkpoints record it.
    new_rate: resume with another learning rate or schedule, or for more steps; the moments of the
      optimizer stay. A schedule counts its steps from the first one of the run. A rate that a
      plateau has lowered is reset.
    spent: seconds since the start of the process, for the account of its time.
    trackers: your own, beside those that `config.train.trackers` names.

  Raises:
    ConfigError: the configuration is not valid, or not the one that the work directory was started
      with.
    DataError: there is no usable data.
    NonFiniteError: the loss is no longer finite.
    CheckpointError: there are checkpoints, but none is valid.
  """
  workdir = pathlib.Path(workdir)
  config = ConfigDict(pinned(config.to_dict()))
  settings = run_settings(fields_of(config, 'train'), config.seed)
  rate = optimizer_settings(fields_of(config, 'optimizer'))
  trackers = [*make_trackers(settings.trackers), *trackers]
  with contextlib.ExitStack() as stack:
    # The work directory: locked by this process, started with this configuration.
    session = stack.enter_context(run_session(workdir, settings.limits, spent))
    interval = save_interval(workdir, settings.save_every)
    allowed = {'new_data': new_data, 'new_rate': new_rate}
    claim_workdir(config.to_dict(), workdir, packages=_RECORDED, **allowed)
    session.note()

    # The mesh of all devices; `rules` say how parameters are sharded over it.
    mesh = make_mesh(fields_of(config, 'mesh'), str(config.rules))
    stack.enter_context(jax.set_mesh(mesh))

    # Model, objective and data. A host reads only its rows of every batch.
    spec = make_spec(config, workdir)
    for line in _describe_rates(spec, rate):
      _log.info('%s', line)
    buckets = fields_of(config, 'buckets').items()
    check_batches(settings, {name: bucket['batch_size'] for name, bucket in buckets}, mesh)
    host, hosts = rows_of_process(mesh, jax.process_index())
    batches = make_batches(spec.buckets, seed=settings.seed, host=host, hosts=hosts)
    data = describe_data(spec.buckets, settings.seed)

    # The state: from the newest valid checkpoint, or a new one.
    optimizer = make_optimizer(rate, settings.steps)
    init = functools.partial(init_params, spec)
    opponent = None
    other = None
    if spec.discriminator is not None:
      opponent = make_optimizer(spec.discriminator.optimizer, settings.steps)
      other = functools.partial(init_params, spec.discriminator), opponent
    target = abstract_state(init, optimizer, mesh, other)
    checkpoints = stack.enter_context(open_checkpoints(workdir, settings.checkpoints, settings))
    directory = os.fspath(checkpoints.directory)
    if not max(checkpoints.steps(), default=0) and not checkpoints.aside():
      check_not_lost(workdir, reached_step(workdir), interval, directory)
    with session.phases.during('restore', compiles=True):
      if (restored := checkpoints.restore(target)) is not None:
        state, meta = restored
        before = migrate(meta['config'])
        if settings.checkpoints:  # they may be of another run, which a new workdir cannot tell
          check_same(before, config.to_dict(), directory, **allowed)
        if changed := changed_rates(before, config.to_dict()):
          _log.info('from step %d on: %s', int(state.step), '; '.join(changed))
          state = restarted(state)
        spec.callbacks.check(meta['notes'])
        if state.counters is not None:
          counters = reopened(state.counters, settings.guard)
          state = dataclasses.replace(state, counters=counters)
        orders = continue_orders(
          meta['orders'],
          int(state.step),
          data_hash(data),
          before=data_hash(without_worlds(data)),
          allow=new_data,
        )
      else:
        state = _new_state(spec, optimizer, opponent, settings.seed, mesh, target)
        orders = [(0, data_hash(data))]
    if jax.process_index() == 0:
      shapes = {name: list(leaf.shape) for name, leaf in named_leaves(state.params).items()}
      write_json(workdir / 'parameters.json', shapes)
    _log.info('%d parameters, step %d', count_parameters(state.params), int(state.step))

    # The step: one compiled program for each shape of batches. With jax_debug_nans, JAX runs a step
    # again to find the operation that made a NaN, so the state must not be donated.
    # JAX makes the attributes of `config` at import, unseen by its types.
    keeps_state = jax.config.jax_debug_nans  # pyright: ignore[reportAttributeAccessIssue]
    step = jax.jit(
      _make_step(spec, optimizer, opponent, rate, settings, accumulation(settings, mesh)),
      donate_argnums=() if keeps_state else 0,
      out_shardings=(shardings_of(state), None),
      compiler_options=compiler_options(mesh.devices.flat[0], mesh.size),
    )
    if spec.frozen:
      step = functools.partial(step, frozen=spec.frozen)

    # The loop, and the functions that it calls besides the step.
    hooks = Hooks(
      prepare=spec.prepare,
      evaluate=make_evaluate(spec, mesh, batches=settings.validation_batches),
      meta=functools.partial(_meta, config.to_dict(), spec, orders),
      callbacks=spec.callbacks,
      react=make_react(rate.plateau, spec.discriminator and spec.discriminator.optimizer.plateau),
      norms=jax.jit(parameter_norms),
      flops=spec.flops,
    )
    loading = fields_of(config, 'data')
    begin = orders[-1][0]  # step of the first batch of the current order
    loader = stack.enter_context(
      StepIterator(
        batches,
        int(state.step) - begin,
        threads=loading['threads'],
        workers=loading.get('workers', 0),
      )
    )
    stack.enter_context(naming_samples(spec.buckets, settings.seed, begin))
    context = RunContext(mesh, workdir, checkpoints, session, trackers, config.to_dict())
    return run_loop(state, step, loader, hooks, settings, context, stop_at=stop_at)


@dataclasses.dataclass(frozen=True)
class Hooks:
  """The functions that the loop calls besides the step.

  Attributes:
    prepare: batch on the devices -> input of the step.
    evaluate: parameters -> validation metrics. It is called with the averaged parameters, and at
      the end also with the parameters themselves.
    meta: state -> the meta of its checkpoint.
    callbacks: of the section; `show` and `at_checkpoint` are called.
    react: state, validation metrics -> the state to continue with; None keeps the state.
    norms: state -> the norms of its parameters.
    flops: input of the step -> floating-point operations of the step on all devices.

  Every process calls all of them at the same steps, because the state may be sharded over hosts.
  """

  prepare: Callable[[Batch], Batch]
  evaluate: Callable[[Tree], Metrics]
  meta: Callable[[State], JSON]
  callbacks: Callbacks = Callbacks()  # noqa: RUF009 (it has no state)
  react: Callable[[State, Metrics], State] | None = None
  norms: Callable[[State], Metrics] = lambda state: {}
  flops: Callable[[Batch], int] | None = None


@dataclasses.dataclass(frozen=True)
class RunContext:
  """The devices, files and trackers of a run, and the process that it is in.

  Attributes:
    session: of the process; by default one that hears signals, and that is all.
    config: what trackers receive of the run.
  """

  mesh: Mesh
  workdir: pathlib.Path
  checkpoints: Checkpoints
  session: Session | None = None
  trackers: Sequence[Tracker] = ()
  config: JSON | None = None


def run_loop(
  state: State,
  step: Step,
  loader: StepIterator,
  hooks: Hooks,
  settings: RunSettings,
  context: RunContext,
  *,
  stop_at: int | None = None,
) -> State:
  """Trains from `state.step` to the end of the schedule, or until a signal stops it.

  Args:
    step: jitted; may donate its state.
    loader: positioned at `state.step`.
    stop_at: save and return after this step, as on a signal.

  Raises:
    NonFiniteError: more bad steps in a row than the guard allows, or a state that is not finite.
      That state is not saved.
    ConfigError: another process has taken over the work directory.
  """
  mesh = context.mesh
  checkpoints = context.checkpoints
  start = done = saved = int(state.step)
  last = settings.steps if stop_at is None else min(stop_at, settings.steps)
  stopping = False
  evaluated = False
  validation = {}
  shapes = set()  # of batches; programs are compiled for each
  with contextlib.ExitStack() as stack:
    session = context.session or stack.enter_context(signals_only())
    during = session.phases.during
    writer = RunLog(context.workdir, done, context.trackers, context.config)
    # Its clock counts only steps and their data.
    progress = Progress(settings.steps, done, clock=session.phases.working)
    stack.enter_context(contextlib.closing(writer))
    stack.enter_context(contextlib.closing(progress))
    stack.enter_context(during('step'))
    if session.ledger is not None:
      session.ledger.begin(done)
    progress.report(done)
    window = LogWindow(writer, progress, session, mesh, hooks.flops)

    def measure(step: int) -> None:
      with during('evaluate', compiles=True), progress.waiting('evaluating the checkpoint'):
        if metrics := hooks.callbacks.at_checkpoint(step, checkpoints.wait):
          writer.write(step, metrics)

    while done < last and not (stopping := session.stopped()):
      session.check()

      # A batch, and a step on it. The host waits for neither: devices run asynchronously.
      with during('data'):
        batch = next(loader)
      window.bound()
      shape = frozenset((name, array.shape, str(array.dtype)) for name, array in batch.items())
      new = shape not in shapes
      waiting = progress.waiting(_compiling(batch) if new else '')
      with during('compile' if new else 'step'), waiting:
        prepared = hooks.prepare(put_batch(batch, mesh))
        window.count(prepared)
        state, metrics = step(state, prepared)
      session.phases.unsaved = True
      shapes.add(shape)
      del batch, prepared
      done += 1

      # Metrics: their means since the last line of metrics.
      window.add(done, metrics)
      window.replaced = loader.replaced
      if due(done, settings.log_every) or done == last:
        window.report(done, hooks.norms(state))
        session.note(done, always=False)

      # Validation with the averaged parameters. A plateau of its loss may lower the rate.
      validation = {}
      if due(done, settings.evaluate_every) or done == settings.steps:
        first = '' if evaluated else 'compiling and running the first validation'
        with during('evaluate', compiles=not evaluated), progress.waiting(first):
          if validation := hooks.evaluate(state.average):  # empty if there is too little data
            ended = done == settings.steps
            raw = _as_raw(hooks.evaluate(state.params)) if ended else {}
            writer.write(done, validation | raw)
          if hooks.react is not None:
            state = hooks.react(state, validation)
        progress.validated(done, validation)
        evaluated = True

      # Samples.
      if due(done, settings.show_every) or done == settings.steps:
        drawing = progress.waiting('compiling and drawing samples')
        with during('evaluate', compiles=True), drawing:
          directory = context.workdir / 'samples' / f'step_{done:06d}'
          if path := hooks.callbacks.show(state.average, directory):
            writer.show(done, path)

      # A checkpoint of a state that was checked to be finite.
      if due(done, settings.save_every) and done < last:
        window.check(done)
        with during('save', compiles=True):
          check_state(state, hooks.norms(state), done)
          session.check()
          checkpoints.save(state, hooks.meta(state), validation_loss(validation))
        saved = done
        session.note(done, always=False)
        measure(done)

    # The end of the schedule, or a signal: a checkpoint, from which the same command resumes.
    window.report(done, hooks.norms(state))
    with during('save', compiles=True):
      session.check()
      # Compared with `saved` and not with the disk, which hosts may see at different times.
      if done != saved or done == 0:
        check_state(state, {}, done)
        checkpoints.save(state, hooks.meta(state), validation_loss(validation))
      checkpoints.wait()
    session.phases.unsaved = False
    if start < done == settings.steps:
      measure(done)
    session.note(done, finished=done == settings.steps)
    if stopping:
      _log.warning('stopped by a signal; step %d is saved, the same command goes on', done)
  return state


def due(step: int, every: int) -> bool:
  """Says whether something with an interval of `every` steps happens after this step."""
  return every > 0 and step % every == 0


def _as_raw(validation: Metrics) -> Metrics:
  """Renames validation metrics of the parameters themselves, instead of their average."""
  return {f'validation_raw/{name.partition("/")[2]}': value for name, value in validation.items()}


def _compiling(batch: Batch) -> str:
  """Describes the program that is compiled for a batch, by the largest array of the batch."""
  name, array = max(batch.items(), key=lambda item: item[1].size)
  return f'compiling the step of {name} {" x ".join(map(str, array.shape))}'


def _describe_rates(spec: TrainSpec, rate: OptimizerSettings) -> list[str]:
  """Checks rates before anything is allocated; returns lines that describe them."""
  lines = describe_rates(rate.rates, param_shapes(spec)) if rate.rates else []
  if spec.discriminator is not None and (rates := spec.discriminator.optimizer.rates):
    shapes = param_shapes(spec.discriminator)
    lines += describe_rates(rates, shapes, 'discriminator.optimizer.rates')
  return lines


def _make_step(
  spec: TrainSpec,
  optimizer,
  opponent,
  rate: OptimizerSettings,
  settings: RunSettings,
  accumulate: int,
) -> Step:
  options = {'seed': settings.seed, 'decay': settings.ema_decay, 'accumulate': accumulate}
  options |= {'guard': settings.guard, 'rates': rate.rates, 'adapt': spec.adapt}
  if spec.discriminator is None:
    step = make_step(spec.model, spec.objective, optimizer, **options)
  else:
    step = make_adversarial_step(spec.model, spec.discriminator, optimizer, opponent, **options)
  schedule = make_learning_rate(rate, settings.steps)

  def step_and_rate(state: State, batch: Batch, frozen: Frozen = None) -> tuple[State, Metrics]:
    after, metrics = step(state, batch, frozen)
    return after, metrics | {'learning_rate': learning_rate(state.opt_state, schedule)}

  return step_and_rate


def _new_state(spec: TrainSpec, optimizer, opponent, seed: int, mesh: Mesh, target: State) -> State:
  key = jax.random.key(seed)
  params = _first_params(functools.partial(init_params, spec), spec.start, mesh, key)
  other = None
  if spec.discriminator is not None:
    init = functools.partial(init_params, spec.discriminator)
    other = _first_params(init, spec.discriminator.begin, mesh, jax.random.fold_in(key, 1))

  def begin(params: Tree, other: Tree) -> State:
    against = None if other is None else start_discriminator(other, opponent)
    return start_state(params, optimizer, against)

  return jax.jit(begin, out_shardings=shardings_of(target))(params, other)


def _first_params(
  init: Callable[[Key], Tree], start: Callable[[Place], Tree] | None, mesh: Mesh, key: Key
) -> Tree:
  """Returns sharded parameters, initialised or as `start` reads them."""
  initialise, shardings = make_initialise(init, mesh)
  params = initialise(key)
  if start is None:
    return params
  sharding_of = make_place(jax.eval_shape(init, jax.random.key(0)), mesh)
  return jax.tree.map(jax.device_put, start_from(start(sharding_of), params), shardings)


def _meta(config: JSON, spec: TrainSpec, orders: Orders, state: State) -> JSON:
  return {
    'step': int(state.step),
    'config': config,
    'orders': orders,
    'notes': spec.callbacks.notes(lambda: state.average),
    'version': __version__,
  }
