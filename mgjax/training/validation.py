"""The validation loss of a part: samples, noise and times are fixed, the model alone moves it."""

from collections.abc import Callable, Mapping
from typing import Any

import jax
from jax.sharding import Mesh
from ml_collections import ConfigDict

from mgjax.core.typing import Batch, Metrics, Tree
from mgjax.data.loader import validation_batches
from mgjax.parallel.distributed import rows_of_process
from mgjax.parallel.shard import put_batch
from mgjax.runtime.metrics import Means
from mgjax.training.spec import Part
from mgjax.training.step import bind, with_frozen


def make_evaluate(part: Part, config: ConfigDict, mesh: Mesh) -> Callable[[Tree], Metrics]:
  """Makes `evaluate(params) -> {'validation/<bucket>/<metric>': mean over the batches}`.

  Args:
    part: with its validation data.
    config: of the run; `train.validation_batches` of each bucket are taken, fewer if it is smaller.
    mesh: of the devices.
  """

  @jax.jit
  def loss(params: Tree, batch: Batch, key: jax.Array, frozen: Tree) -> Metrics:
    return part.validate(bind(part.model, params), with_frozen(batch, frozen), key)[1]

  host, hosts = rows_of_process(mesh, jax.process_index())

  def evaluate(params: Tree) -> Metrics:
    metrics: dict[str, float] = {}
    for bucket in part.validation:
      count = min(config.train.validation_batches, len(bucket.source) // bucket.batch_size)
      share, rows, means = {'host': host, 'hosts': hosts}, [], Means()
      for index, batch in enumerate(validation_batches(bucket, count, **share) if count else ()):
        key = jax.random.fold_in(jax.random.key(config.seed + 1), index)
        rows.append(loss(params, part.prepare(put_batch(batch, mesh)), key, part.frozen))
      for row in jax.device_get(rows):
        means.add(row)
      metrics |= {f'validation/{bucket.name}/{name}': x for name, x in means.means().items()}
    return metrics

  return evaluate


def validation_loss(found: Mapping[str, Any]) -> float | None:
  """Returns the mean of the buckets' losses among validation metrics; None if there is none."""
  losses = [
    float(value)
    for name, value in found.items()
    if name.startswith('validation/') and name.endswith('/loss')
  ]
  return sum(losses) / len(losses) if losses else None
