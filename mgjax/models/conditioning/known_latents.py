"""KnownLatents: latents that are already known, to extend or infill audio (Movie Gen §6)."""

from collections.abc import Mapping
from typing import ClassVar

import flax.linen as nn
import jax.numpy as jnp
import numpy as np

from mgjax.core.configuration.keys import Fields
from mgjax.core.typing import Array, Batch, Bool
from mgjax.models.conditioning.contract import Arrays, Conditioning, Latents, array
from mgjax.models.conditioning.ports import Ports
from mgjax.nn.linear import ZEROS, Linear

CONTEXT_KEY = 'context'


class KnownLatents(Conditioning):
  """Projects known latents, zero where unknown, and adds them to the tokens.

  The paper concatenates them with the noisy latents as channels; a linear map of a concatenation
  is a sum of linear maps, of which this one starts at zero.
  """

  dim: int
  dtype: jnp.dtype = jnp.float32
  optional: ClassVar[bool] = True

  def requires(self, latents: Latents) -> Arrays:
    """Returns latents (t 1 1 c) of the frames that are known; in training the objective draws."""
    return {CONTEXT_KEY: array(latents, np.float32)}

  def fields(self, shape: tuple[int, int, int], latents: Latents) -> Mapping[str, tuple[int, ...]]:
    """Returns the field 'context' (t 1 1 c)."""
    return {CONTEXT_KEY: latents}

  def prepare(self, sample: Fields) -> dict[str, np.ndarray]:
    """Returns a sample's 'context' if it has one."""
    return (
      {CONTEXT_KEY: np.asarray(sample[CONTEXT_KEY], np.float32)} if CONTEXT_KEY in sample else {}
    )

  @nn.compact
  def __call__(self, batch: Batch, drop: Bool[Array, ' b'], latents: Latents) -> Ports:
    if CONTEXT_KEY not in batch:
      return Ports()
    context = batch[CONTEXT_KEY].astype(self.dtype)
    context = jnp.where(drop[:, None, None], 0, context.reshape(*context.shape[:2], -1))
    axes = ('patch', 'embed')
    project = Linear(self.dim, axes, initializer=ZEROS, dtype=self.dtype, name='project')
    return Ports(tokens=project(context))
