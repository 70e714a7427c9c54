"""Gradient accumulation: how many micro-batches a batch is cut into."""

import logging
from collections.abc import Mapping

from jax.sharding import Mesh

from mgjax.core.errors import ConfigError
from mgjax.parallel.rules import BATCH, size
from mgjax.training.settings import RunSettings

_log = logging.getLogger(__name__)


def accumulation(settings: RunSettings, mesh: Mesh) -> int:
  """Returns into how many micro-batches a batch is cut.

  Those of `train.accumulate`, and more where there are fewer groups of devices than the
  `train.device_groups` that it is meant for: the batch stays what it is, and so does what each
  device holds of it at once. Noise and times are drawn for each micro-batch anew, so the draws are
  others.
  """
  fewer = -(-settings.device_groups // size(mesh, BATCH))
  return settings.accumulate * max(1, fewer)


def check_batches(settings: RunSettings, batch_sizes: Mapping[str, int], mesh: Mesh) -> None:
  """Raises ConfigError where batches do not divide; warns where they are cut finer than asked."""
  count, groups = accumulation(settings, mesh), size(mesh, BATCH)
  if count > settings.accumulate:
    _log.warning(
      '%d groups of devices instead of %d: every batch in %d micro-batches',
      groups, settings.device_groups, count,
    )  # fmt: skip
  for name, batch_size in batch_sizes.items():
    if batch_size % (count * groups):
      below = batch_size // (count * groups) * count * groups
      near = [str(rows) for rows in (below, below + count * groups) if rows]
      raise ConfigError(
        f'the batch of {batch_size} of bucket {name!r} does not divide into {count} '
        f'micro-batch(es) (train.accumulate) over {groups} group(s) of devices; take a batch size '
        f'of {" or ".join(near)}, or another mesh'
      )
