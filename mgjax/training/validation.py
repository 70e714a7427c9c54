"""The validation loss, on fixed samples, noise and times, so that the model alone moves it."""

from collections.abc import Callable

import jax
from jax.sharding import Mesh

from mgjax.core.typing import Batch, Metrics, Tree
from mgjax.data.loader import validation_batches
from mgjax.parallel.distributed import rows_of_process
from mgjax.parallel.shard import put_batch
from mgjax.training.monitoring.metrics import Means
from mgjax.training.spec import TrainSpec
from mgjax.training.step import Frozen, bind, with_frozen

_SEED = 1  # of all runs, so that their losses can be compared, whatever their own seeds are


def make_evaluate(spec: TrainSpec, mesh: Mesh, *, batches: int) -> Callable[[Tree], Metrics]:
  """Makes `evaluate(params) -> {'validation/<bucket>/<metric>': mean over the batches}`.

  `batches` are of each bucket, fewer if it is smaller.
  """

  @jax.jit
  def loss(params: Tree, batch: Batch, key: jax.Array, frozen: Frozen) -> Metrics:
    predict = bind(spec.model, params, spec.adapt, frozen)
    return with_frozen(spec.validate, frozen)(predict, batch, key)[1]

  host, hosts = rows_of_process(mesh, jax.process_index())

  def evaluate(params: Tree) -> Metrics:
    metrics: dict[str, float] = {}
    for bucket in spec.validation:
      count = min(batches, len(bucket.source) // bucket.batch_size)
      share = {'host': host, 'hosts': hosts}
      rows = []
      means = Means()
      for index, batch in enumerate(validation_batches(bucket, count, **share) if count else ()):
        key = jax.random.fold_in(jax.random.key(_SEED), index)
        rows.append(loss(params, spec.prepare(put_batch(batch, mesh)), key, spec.frozen))
      for row in jax.device_get(rows):
        means.add(row)
      metrics |= {f'validation/{bucket.name}/{name}': x for name, x in means.means().items()}
    return metrics

  return evaluate
