"""Statistics of the latents that an autoencoder makes of its training data."""

from collections.abc import Callable, Sequence

import numpy as np

from mgjax.core.typing import Array, Batch
from mgjax.data.loader import validation_batches
from mgjax.data.mixture import Bucket
from mgjax.parallel.distributed import fetch
from mgjax.tae.latents import Statistics, estimate_statistics

BATCHES = 8  # per bucket


def latent_statistics(
  buckets: Sequence[Bucket], encode: Callable[[Batch], Array], batches: int = BATCHES
) -> Statistics:
  """Estimates mean and deviation of each channel over the first batches of every bucket.

  Training data, because a flow model will see the latents of those.

  Args:
    buckets: with samples that `encode` reads.
    encode: a batch to latents (... c).
    batches: of a bucket; where there are fewer samples than a batch has, all of them.
  """
  arrays = []
  for bucket in buckets:
    count = min(batches, len(bucket.source) // bucket.batch_size)
    if count:
      arrays += [fetch(encode(batch)) for batch in validation_batches(bucket, count)]
    else:
      samples = [bucket.source[index] for index in range(len(bucket.source))]
      transform = bucket.transform or dict
      rows = [transform(sample) for sample in samples]
      arrays.append(
        fetch(encode({name: np.stack([row[name] for row in rows]) for name in rows[0]}))
      )
  return estimate_statistics(arrays)
