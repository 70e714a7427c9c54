"""LowResolution: the video that is enlarged, in latents (Movie Gen §3.1.5)."""

from collections.abc import Mapping
from typing import Any, ClassVar

import flax.linen as nn
import jax.numpy as jnp
import numpy as np

from mgjax.conditioning.contract import Arrays, Conditioning, Latents, array
from mgjax.conditioning.ports import Ports
from mgjax.core.typing import Array, Batch, Bool
from mgjax.nn.linear import ZEROS, Linear
from mgjax.nn.patch import Patch, patchify

KEY = 'low_resolution'


class LowResolution(Conditioning):
  """Projects the latents of the low-resolution video, enlarged, and adds them to the tokens.

  The report concatenates them with the noisy latents as channels, with weights that start at zero;
  a linear map of a concatenation is a sum of linear maps, of which this one starts at zero. So a
  text-to-image model to which it is added answers as before.

  Attributes:
    dim: model width d.
    patch: (t, h, w) latent places of a token.
    dtype: compute type.
  """

  dim: int
  patch: Patch
  dtype: jnp.dtype = jnp.float32
  optional: ClassVar[bool] = True

  def requires(self, latents: Latents) -> Arrays:
    """Returns latents of the same shape (t h w c) as those that are generated."""
    return {KEY: array(latents, np.float32)}

  def fields(self, shape: tuple[int, int, int], latents: Latents) -> Mapping[str, tuple[int, ...]]:
    """Returns the field 'low_resolution' (t h w 3), enlarged to the size of what is generated."""
    del latents
    return {KEY: (*shape, 3)}

  def encodes(self) -> tuple[str, ...]:
    """Names its latents."""
    return (KEY,)

  def clips(self, sample: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """Returns a sample's 'low_resolution' if it has one."""
    return {KEY: np.asarray(sample[KEY])} if KEY in sample else {}

  @nn.compact
  def __call__(self, batch: Batch, drop: Bool[Array, ' b'], latents: Latents) -> Ports:
    if KEY not in batch:
      return Ports()
    tokens = patchify(batch[KEY].astype(self.dtype), self.patch)
    tokens = jnp.where(drop[:, None, None], 0, tokens)
    axes = ('patch', 'embed')
    project = Linear(self.dim, axes, initializer=ZEROS, dtype=self.dtype, name='project')
    return Ports(tokens=project(tokens))
