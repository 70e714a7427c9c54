"""Latents that are already known as a condition: audio to continue or to fill in (Movie Gen §6)."""

from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
import numpy as np

from mgjax.conditioning.ports import Ports
from mgjax.core.typing import Array, Batch, Bool
from mgjax.nn.linear import ZEROS, Linear


class KnownLatents(nn.Module):
  """Latents that are known, zeros where they are not: sound to go on with or to fill up.

  The report lays them beside the noisy latents as more channels; a linear map of a concatenation is
  a sum of linear maps, of which this one starts at zero.

  Attributes:
    dim: model width d.
    dtype: compute type.
  """

  dim: int
  dtype: jnp.dtype = jnp.float32

  def requires(self) -> tuple[str, ...]:
    """Names the batch keys that `__call__` reads."""
    return ('context',)

  def prepare(self, sample: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """Takes a sample's 'context' (t 1 1 c) over; in training the objective draws it instead."""
    return {'context': np.asarray(sample['context'], np.float32)} if 'context' in sample else {}

  @nn.compact
  def __call__(self, batch: Batch, drop: Bool[Array, ' b']) -> Ports:
    context = batch['context'].astype(self.dtype)
    context = jnp.where(drop[:, None, None], 0, context.reshape(*context.shape[:2], -1))
    axes = ('patch', 'embed')
    project = Linear(self.dim, axes, initializer=ZEROS, dtype=self.dtype, name='project')
    return Ports(tokens=project(context))
