"""KnownLatents: latents that are already known, to extend or infill audio (Movie Gen §6)."""

from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
import numpy as np

from mgjax.conditioning.ports import Ports
from mgjax.core.typing import Array, Batch, Bool
from mgjax.nn.linear import ZEROS, Linear


class KnownLatents(nn.Module):
  """Projects known latents, zero where unknown, and adds them to the tokens.

  The report concatenates them with the noisy latents as channels; a linear map of a concatenation
  is a sum of linear maps, of which this one starts at zero.

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
    """Returns a sample's 'context' (t 1 1 c) if it has one; in training the objective draws it."""
    return {'context': np.asarray(sample['context'], np.float32)} if 'context' in sample else {}

  @nn.compact
  def __call__(self, batch: Batch, drop: Bool[Array, ' b']) -> Ports:
    context = batch['context'].astype(self.dtype)
    context = jnp.where(drop[:, None, None], 0, context.reshape(*context.shape[:2], -1))
    axes = ('patch', 'embed')
    project = Linear(self.dim, axes, initializer=ZEROS, dtype=self.dtype, name='project')
    return Ports(tokens=project(context))
