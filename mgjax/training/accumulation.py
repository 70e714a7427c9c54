"""Batches in pieces: what devices cannot hold at once, they take one after another."""

import logging

from jax.sharding import Mesh
from ml_collections import ConfigDict

from mgjax.core.errors import ConfigError
from mgjax.parallel.rules import BATCH, size

_log = logging.getLogger(__name__)


def accumulation(config: ConfigDict, mesh: Mesh) -> int:
  """Returns into how many micro-batches a batch is cut.

  Those of `train.accumulate`, and more where there are fewer groups of devices than the
  `train.device_groups` that it is meant for: the batch stays what it is, and so does what each device
  holds of it at once. Noise and times are drawn for each micro-batch anew, so the draws are others.
  """
  fewer = -(-config.train.get('device_groups', 0) // size(mesh, BATCH))
  return config.train.accumulate * max(1, fewer)


def check_batches(config: ConfigDict, mesh: Mesh) -> None:
  """Raises ConfigError where a batch cannot be cut so; warns where it is cut finer than asked."""
  count, parts = accumulation(config, mesh), size(mesh, BATCH)
  if count > config.train.accumulate:
    _log.warning(
      '%d groups of devices instead of %d: every batch in %d micro-batches',
      parts, config.train.device_groups, count,
    )  # fmt: skip
  if count < 1:
    raise ConfigError(f'train.accumulate = {count}; take 1 or more')
  for name, bucket in config.buckets.items():
    if bucket.batch_size % (count * parts):
      below = bucket.batch_size // (count * parts) * count * parts
      near = [str(rows) for rows in (below, below + count * parts) if rows]
      raise ConfigError(
        f'the batch of {bucket.batch_size} of bucket {name!r} does not divide into {count} '
        f'micro-batch(es) (train.accumulate) over {parts} group(s) of devices; take a batch size '
        f'of {" or ".join(near)}, or another mesh'
      )
