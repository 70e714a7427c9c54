"""Handles steps that are not finite: logs them, ends the run, and names their samples."""

import contextlib
import logging
import math
from collections.abc import Iterator, Sequence

import jax
import jax.numpy as jnp

from mgjax.core.errors import MgjaxError, NonFiniteError
from mgjax.core.tree import named_leaves
from mgjax.core.typing import Metrics
from mgjax.data.batch_order import ShapeBucket, samples_of_batch
from mgjax.training.optimizers.plateau import Plateau
from mgjax.training.state import State

JUDGED = ('loss', 'gradient_norm', 'discriminator_gradient_norm')
COUNTED = ('skipped', 'stopped', 'skipped_in_a_row')
_SHOWN = 8  # samples that are named: each is read for its file name

_log = logging.getLogger(__name__)
_all_finite = jax.jit(lambda leaf: jnp.isfinite(leaf).all())


def drop_skipped(rows: Sequence[Metrics], done: int) -> list[Metrics]:
  """Returns the rows of steps up to `done` that were not skipped, and logs skipped steps.
  Raises NonFiniteError if the guard skips all later steps, or a step without a guard was not
  finite.
  """
  finite_rows = []
  for step, row in enumerate(rows, done - len(rows) + 1):
    if row.get('stopped', 'skipped' not in row and not _finite(row)):
      count = int(row.get('skipped_in_a_row', 1))
      last = f', the last of {count} bad steps in a row' if count > 1 else ''
      raise NonFiniteError(
        f'{_what(row, step)}{last}; checkpoints hold earlier steps only. The same command '
        'goes on from there and ends the same way, unless it was a device that erred: then let '
        'more steps pass with train.faults, take another --workdir with a lower '
        'optimizer.learning_rate or optimizer.clip, or mend the data of that step',
        step,
      )
    if row.get('skipped'):
      _log.warning('%s: skipped, as %d in a row now', _what(row, step), row['skipped_in_a_row'])
    else:
      finite_rows.append({name: value for name, value in row.items() if name not in COUNTED})
  return finite_rows


def check_norms(norms: Metrics, done: int) -> Metrics:
  """Fetches the norms of parameters. Raises NonFiniteError if one is not finite."""
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
  """Checks a state before it is saved: parameters by their norms, averages and moments by element.

  Raises NonFiniteError if one is not finite. Moments can overflow although gradients are finite:
  they hold squares. Their parameters would then never change again.
  """
  check_norms(norms, done)
  moments = {'optimizer': state.opt_state}
  if state.discriminator is not None:
    moments['discriminator_optimizer'] = state.discriminator['opt_state']
  # The best loss of a plateau is infinite before the first validation.
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
  if bad := [name for name, is_finite in jax.device_get(finite).items() if not is_finite]:
    raise NonFiniteError(
      f'{bad[0]} of step {done} is not finite ({len(bad)} of {len(finite)} averages and moments); '
      'checkpoints hold earlier steps only, and the same command goes on from there. If it ends '
      'the same way, take another --workdir with other values of train.ema_decay and optimizer'
    )


def _finite(row: Metrics) -> bool:
  return all(math.isfinite(float(row.get(name, 0))) for name in JUDGED)


def _what(row: Metrics, step: int) -> str:
  for name in JUDGED:
    if not math.isfinite(value := float(row.get(name, 0))):
      return f'the {name} of step {step} is {value}'
  norms = ', '.join(f'{name} {float(row[name]):.4g}' for name in JUDGED[1:] if name in row)
  return f'step {step} is a spike ({norms}; see running_gradient_norm and train.faults.spike)'


@contextlib.contextmanager
def naming_samples(buckets: Sequence[ShapeBucket], seed: int, begin: int) -> Iterator[None]:
  """Adds the step's samples to a NonFiniteError, and how to find the operation.

  `begin` is the step of the first batch of the current order of the data.
  """
  try:
    yield
  except NonFiniteError as error:
    if error.step is None:
      raise
    bucket, indices = samples_of_batch(buckets, error.step - 1 - begin, seed=seed)
    names = [_file_of(bucket, index) for index in indices[:_SHOWN]]
    suffix = f' and {len(indices) - _SHOWN} more' if len(indices) > _SHOWN else ''
    raise NonFiniteError(
      f'{error}. Of the bucket {bucket.name!r} that step read {", ".join(names)}{suffix}. The same '
      'command with JAX_DEBUG_NANS=1 shows the operation that made the first NaN',
      error.step,
    ) from error


def _file_of(bucket: ShapeBucket, index: int) -> str:
  """Returns the file of a sample, or its index if it has none."""
  try:
    return str(bucket.source[int(index)].get('source', index))
  except MgjaxError as error:
    return f'{index} (unreadable: {error})'
