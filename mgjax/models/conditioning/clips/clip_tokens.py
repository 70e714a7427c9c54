"""What conditionings by a clip of the size of what is generated have in common."""

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
from mgjax.nn.patch import Patch, patchify


class ClipTokens(Conditioning):
  """Projects the latents of a clip and adds them to the tokens; a base that names its `key`.

  The paper concatenates them with the noisy latents as channels, with weights that start at zero;
  a linear map of a concatenation is a sum of linear maps, of which this one starts at zero. So a
  model to which it is added answers as before. `key` is the field of samples that is the clip, and
  the array of batches that is its latents.
  """

  dim: int
  patch: Patch
  dtype: jnp.dtype = jnp.float32
  optional: ClassVar[bool] = True
  key: ClassVar[str]

  @property
  def starts_at_zero(self) -> bool:
    """Whether the projection does, so that a model to which it is added answers as before."""
    return True

  def requires(self, latents: Latents) -> Arrays:
    """Returns latents of the same shape (t h w c) as those that are generated."""
    return {self.key: array(latents, np.float32)}

  def fields(self, shape: tuple[int, int, int], latents: Latents) -> Mapping[str, tuple[int, ...]]:
    """Returns the clip (t h w 3), of the size of what is generated."""
    return {self.key: (*shape, 3)}

  def encodes(self) -> tuple[str, ...]:
    """Names its latents."""
    return (self.key,)

  def clips(self, sample: Fields) -> dict[str, np.ndarray]:
    """Returns the clip of a sample if it has one."""
    return {self.key: np.asarray(sample[self.key])} if self.key in sample else {}

  @nn.compact
  def __call__(self, batch: Batch, drop: Bool[Array, ' b'], latents: Latents) -> Ports:
    if self.key not in batch:
      return Ports()
    tokens = patchify(batch[self.key].astype(self.dtype), self.patch)
    tokens = jnp.where(drop[:, None, None], 0, tokens)
    axes = ('patch', 'embed')
    drawn = {'initializer': ZEROS} if self.starts_at_zero else {}
    project = Linear(self.dim, axes, dtype=self.dtype, name='project', **drawn)
    return Ports(tokens=project(tokens))
