"""Reports skipped and non-finite steps, and saves the step that ended a run for a replay.

A folder `faults/step_N` of the work directory holds the batch of step N as the loader gave it (one
file of a row of arrays for each share of it), the parameters that the step began with, the
configuration, and `report.json`: which samples these were, and every leaf that is not finite.
`launch.train --replay=<folder>` takes that step again.
"""

import contextlib
import logging
import math
import os
import pathlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import Mesh

from mgjax.checkpoints.manager import Checkpoints
from mgjax.core.errors import ConfigError, MgjaxError, NonFiniteError
from mgjax.core.files import write_bytes, write_json
from mgjax.core.tree import named_leaves
from mgjax.core.typing import Array, Batch, Metrics, Tree
from mgjax.data.mixture import REPLACED, ShapeBucket, make_batches, samples_of_batch
from mgjax.data.records.rows import decode_row, encode_row
from mgjax.parallel.distributed import rows_of_process
from mgjax.parallel.shard import put_batch
from mgjax.training.adversarial import make_adversarial_learn
from mgjax.training.plateau import Plateau
from mgjax.training.rates import Rates
from mgjax.training.spec import TrainSpec
from mgjax.training.state import State
from mgjax.training.step import Learn, make_learn

JUDGED = ('loss', 'gradient_norm', 'discriminator_gradient_norm')
COUNTED = ('skipped', 'stopped', 'skipped_in_a_row')
SHOWN = 64  # samples whose files are looked up: that reads them
TREES = ('batch', 'prepared', 'parameters', 'discriminator_parameters', 'loss', 'gradients')

_log = logging.getLogger(__name__)


def drop_skipped(rows: Sequence[Metrics], done: int) -> list[Metrics]:
  """Returns the metrics of the steps that were taken, and logs those that were skipped.

  Args:
    rows: of each step, on the host.
    done: the number of the last one.

  Raises:
    NonFiniteError: the guard is closed; or a step without a guard was not finite.
  """
  kept = []
  for step, row in enumerate(rows, done - len(rows) + 1):
    if row.get('stopped', 'skipped' not in row and not _finite(row)):
      raise NonFiniteError(
        f'{_what(row, step)}{_row_of(row)}; checkpoints hold earlier steps only. The same command '
        'goes on from there and ends the same way, unless it was a device that erred: then let '
        'more steps pass with train.faults, take another --workdir with a lower '
        'optimizer.learning_rate or optimizer.clip, or mend the data of that step',
        step,
      )
    if row.get('skipped'):
      _log.warning('%s: skipped, as %d in a row now', _what(row, step), row['skipped_in_a_row'])
    else:
      kept.append({name: each for name, each in row.items() if name not in COUNTED})
  return kept


def check_norms(norms: Metrics, done: int) -> Metrics:
  """Fetches the norms of parameters, and checks that they are finite.

  Raises:
    NonFiniteError: one is not, which no guard mends: nothing brings a parameter back.
  """
  norms = jax.device_get(norms)
  if bad := [name for name, norm in norms.items() if not math.isfinite(norm)]:
    raise NonFiniteError(
      f'the parameters of step {done} are not all finite (see {bad[0]}); checkpoints hold earlier '
      'steps only, and the same command goes on from there. If it ends the same way, take another '
      '--workdir with a lower optimizer.learning_rate; if not, a device erred',
      done,
    )
  return norms


def check_state(state: State, norms: Metrics, done: int) -> None:
  """Checks what is about to be saved: parameters by their norms, averages and moments by number.

  Raises:
    NonFiniteError: something is not finite. Moments may be so where no gradient was: of large ones
      the squares overflow, and their parameters would never move again.
  """
  check_norms(norms, done)
  moments = {'optimizer': state.opt_state}
  if state.discriminator is not None:
    moments['discriminator_optimizer'] = state.discriminator['opt_state']
  # A plateau waits for its first loss with infinity.
  moments = jax.tree.map(
    lambda leaf: None if isinstance(leaf, Plateau) else leaf,
    moments,
    is_leaf=lambda leaf: isinstance(leaf, Plateau),
  )
  leaves = named_leaves({'average': state.average} | moments)
  finite = {
    name: _all_finite(leaf)
    for name, leaf in leaves.items()
    if jnp.issubdtype(leaf.dtype, jnp.inexact)
  }
  if bad := [name for name, well in jax.device_get(finite).items() if not well]:
    raise NonFiniteError(
      f'{bad[0]} of step {done} is not finite ({len(bad)} of {len(finite)} averages and moments); '
      'checkpoints hold earlier steps only, and the same command goes on from there. If it ends '
      'the same way, take another --workdir with other values of train.ema_decay and optimizer'
    )


def _row_of(row: Metrics) -> str:
  count = int(row.get('skipped_in_a_row', 1))
  return f', the last of {count} bad steps in a row' if count > 1 else ''


def _finite(row: Metrics) -> bool:
  return all(math.isfinite(float(row.get(name, 0))) for name in JUDGED)


def _what(row: Metrics, step: int) -> str:
  for name in JUDGED:
    if not math.isfinite(value := float(row.get(name, 0))):
      return f'the {name} of step {step} is {value}'
  norms = ', '.join(f'{name} {float(row[name]):.4g}' for name in JUDGED[1:] if name in row)
  return f'step {step} is a spike ({norms}; see running_gradient_norm and train.faults.spike)'


@contextlib.contextmanager
def explained(
  explain: Callable[[State, int], str] | None, state: Callable[[], State]
) -> Iterator[None]:
  """Adds to a NonFiniteError what was found out about it; `state()` is the one after the step."""
  try:
    yield
  except NonFiniteError as error:
    if explain is None or error.step is None:
      raise
    try:
      more = explain(state(), error.step)
    except Exception as other:  # a full disk, say, must not hide what happened
      _log.warning('could not keep step %d for a replay', error.step, exc_info=True)
      more = f'It could not be kept for a replay: {other}'
    raise NonFiniteError(f'{error}. {more}', error.step) from error


def make_examine(learn: Learn) -> Callable[..., dict[str, dict[str, list[float]]]]:
  """Makes `examine(state, batch, prepared, frozen)`, which says where numbers are not finite.

  It returns, for each of TREES, name of leaf -> [norm of the finite numbers, how many are not].
  """

  @jax.jit
  def examine(state: State, batch: Batch, prepared: Batch, frozen: Tree) -> Tree:
    gradients, loss, _ = learn(state, prepared, frozen)
    trees = (batch, prepared, state.params, (state.discriminator or {}).get('params', {}))
    trees = (*map(named_leaves, trees), {'': loss}, named_leaves(gradients))
    return {
      name: {leaf: _measured(x) for leaf, x in tree.items() if jnp.issubdtype(x.dtype, jnp.inexact)}
      for name, tree in zip(TREES, trees, strict=True)
    }

  def numbers(*arguments: Tree) -> dict[str, dict[str, list[float]]]:
    found = jax.device_get(examine(*arguments))
    # A program returns its dictionaries in alphabetical order; TREES are in that of the data's way.
    return {
      name: {leaf: [float(norm), int(bad)] for leaf, (norm, bad) in found[name].items()}
      for name in TREES
    }

  return numbers


@jax.jit
def _all_finite(x: Array) -> Array:
  return jnp.all(jnp.isfinite(x))


def _measured(x: Array) -> tuple[Array, Array]:
  finite = jnp.isfinite(x)
  norm = optax.tree.norm(jnp.where(finite, x, 0).astype(jnp.float32))
  return norm, jnp.sum(~finite, dtype=jnp.int32)


def first_bad(found: Mapping[str, Mapping[str, Sequence[float]]]) -> str:
  """Says which leaf is the first that is not finite, on the way from the batch to the gradients.

  Where all are finite it says whose gradient is the largest.
  """
  for tree, leaves in found.items():
    bad = {leaf: int(numbers[1]) for leaf, numbers in leaves.items() if numbers[1]}
    if bad:
      leaf, count = next(iter(bad.items()))
      of = f' ({len(bad)} of {len(leaves)} leaves)' if len(leaves) > 1 else ''
      return f'the first that is not finite is {f"{tree}/{leaf}".rstrip("/")}, {count} numbers{of}'
  gradients = {leaf: numbers[0] for leaf, numbers in found['gradients'].items()}
  largest = max(gradients, key=lambda leaf: gradients[leaf])
  return f'all numbers are finite, and the largest norm is {gradients[largest]:.4g} of {largest}'


def samples_in_batch(bucket: ShapeBucket, indices: Iterable[int]) -> list[dict[str, Any]]:
  """Returns the index and, of the first few that have one, the file of every sample of a batch."""
  named = []
  for place, index in enumerate(indices):
    sample: dict[str, Any] = {'index': int(index)}
    if place < SHOWN:
      try:
        source = bucket.source[int(index)].get('source')
      except MgjaxError as error:
        source = f'unreadable: {error}'
      named.append(sample | ({} if source is None else {'source': str(source)}))
    else:
      named.append(sample)
  return named


def save_fault(
  folder: pathlib.Path,
  state: State,
  batch: Mapping[str, np.ndarray],
  share: tuple[int, int],
  config: Mapping[str, Any],
  report: Mapping[str, Any],
) -> None:
  """Writes what a replay needs; every process calls it.

  Args:
    folder: to write to.
    state: before the step; of the optimizer and of the average nothing is kept.
    batch: the rows that this process brought.
    share: their place among the processes, and how many bring others.
    config: of the run.
    report: JSON values.
  """
  host, hosts = share
  write_bytes(folder / f'batch-{host:05d}-of-{hosts:05d}.row', encode_row(dict(batch)))
  if jax.process_index() == 0:
    write_json(folder / 'config.json', config)
    write_json(folder / 'report.json', report)
  with Checkpoints(folder / 'checkpoints') as checkpoints:
    checkpoints.save(bare(state), {})


def bare(state: State) -> State:
  """Returns a state of parameters alone, with those of the discriminator."""
  discriminator = state.discriminator and {'params': state.discriminator['params']}
  return State(state.step, state.params, {}, {}, discriminator)


def load_batch(folder: str | os.PathLike[str], share: tuple[int, int]) -> dict[str, np.ndarray]:
  """Reads a share of the batch of a fault; there need not be as many shares as when it was saved.

  Raises:
    ConfigError: there is none; or, from the caller's `put_batch`, the rows do not divide over the
      devices.
  """
  rows = [decode_row(path.read_bytes()) for path in sorted(pathlib.Path(folder).glob('batch-*'))]
  if not rows:
    raise ConfigError(f'{os.fspath(folder)!r} has no batch-*.row: its writing was cut short')
  whole = {name: np.concatenate([row[name] for row in rows]) for name in rows[0]}
  host, hosts = share
  return {
    name: array[len(array) * host // hosts : len(array) * (host + 1) // hosts]
    for name, array in whole.items()
  }


def make_explain(
  spec: TrainSpec,
  mesh: Mesh,
  workdir: pathlib.Path,
  config: Mapping[str, Any],
  *,
  begin: int,
  seed: int,
  accumulate: int,
  rates: Rates = (),
) -> Callable[[State, int], str]:
  """Makes `explain(state, step) -> sentence`, which keeps a step that ended a run for a replay.

  Args:
    spec: what the run trains.
    mesh: of the devices.
    workdir: of the run.
    config: of the run, to be written down.
    begin: step of the first batch of the order of the data in force.
    seed: of the run.
    accumulate: micro-batches that a batch is cut into.
    rates: of the model's optimizer.
  """
  options = {'seed': seed, 'accumulate': accumulate, 'rates': rates}
  share = rows_of_process(mesh, jax.process_index())

  def explain(state: State, step: int) -> str:
    # The guard is closed: these are the parameters that the step began with, or itself spoilt.
    state = bare(state.replace(step=jnp.full_like(state.step, step - 1)))
    host, hosts = share
    batches = make_batches(spec.buckets, seed=seed, host=host, hosts=hosts)
    batch = {**batches[step - 1 - begin]}
    batch.pop(REPLACED, None)
    found = examine(spec, mesh, state, batch, **options)
    bucket, indices = samples_of_batch(spec.buckets, step - 1 - begin, seed=seed)
    samples = samples_in_batch(bucket, indices) if jax.process_index() == 0 else []
    folder = workdir / 'faults' / f'step_{step:06d}'
    report = {'step': step, 'first': first_bad(found), 'bucket': bucket.name}
    report |= {'samples': samples, 'leaves': found}
    save_fault(folder, state, batch, share, config, report)
    read = f'; of the bucket {bucket.name!r} it read {_listed(samples)}' if samples else ''
    return f'There {first_bad(found)}{read}. Take that step again with --replay={folder}'

  return explain


def examine(
  spec: TrainSpec,
  mesh: Mesh,
  state: State,
  batch: Mapping[str, np.ndarray],
  *,
  seed: int,
  accumulate: int,
  rates: Rates = (),
) -> dict[str, dict[str, list[float]]]:
  """Takes a step again, without the update, and measures all that it reads and makes.

  Args:
    spec: whose step it is.
    mesh: of the devices.
    state: before the step.
    batch: the rows of this process, as the loader gave them.
    seed: of the run.
    accumulate: micro-batches that the batch is cut into.
    rates: of the model's optimizer.

  Returns:
    For each of TREES, name of leaf -> [norm of its finite numbers, how many are not].
  """
  placed = put_batch(dict(batch), mesh)
  learn = make_learn_of(spec, seed=seed, accumulate=accumulate, rates=rates)
  return make_examine(learn)(state, placed, spec.prepare(placed), spec.frozen)


def make_learn_of(spec: TrainSpec, *, seed: int, accumulate: int, rates: Rates = ()) -> Learn:
  """Makes the gradients of a step, with or without a discriminator."""
  options = {'seed': seed, 'accumulate': accumulate, 'rates': rates}
  if spec.discriminator is None:
    return make_learn(spec.model, spec.objective, **options)
  return make_adversarial_learn(spec.model, spec.discriminator, **options)


def _listed(samples: Sequence[Mapping[str, Any]], most: int = 8) -> str:
  names = [str(sample.get('source', sample['index'])) for sample in samples]
  return ', '.join(names[:most]) + (f' and {len(names) - most} more' if len(names) > most else '')
