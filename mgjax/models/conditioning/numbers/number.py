"""What conditionings by a number, or by a few, have in common."""

from collections.abc import Mapping
from typing import ClassVar

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from mgjax.core.configuration.keys import Fields
from mgjax.core.typing import Array, Batch, Bool
from mgjax.models.conditioning.contract import Arrays, Conditioning, Latents, array
from mgjax.models.conditioning.ports import Ports
from mgjax.nn.linear import ZEROS, Linear
from mgjax.nn.sinusoidal_embedding import sinusoids


class Number(Conditioning):
  """Adds V silu(W [sinusoids((n_1 - centre) / unit) ...]) to the embedding of time; a base.

  V starts at zero and zeros add nothing: a model to which this is added answers as before, bit for
  bit.

  Attributes:
    key: the field of samples and the array of batches.
    internal: whether objective and sampler set the numbers. Others are fields of samples, which
      callers of `generate` pass.
    centre: the number whose sinusoids are those of 0.
    unit: the distance from it that is resolved as well as that from noise to data.
  """

  dim: int
  dtype: jnp.dtype = jnp.float32
  optional: ClassVar[bool] = True
  key: ClassVar[str]
  internal: ClassVar[bool] = False
  centre: ClassVar[float] = 0.0
  unit: ClassVar[float] = 1.0

  @property
  def shape(self) -> tuple[int, ...]:
    """The shape of a row's numbers: () for one, (k,) for several."""
    return ()

  def requires(self, latents: Latents) -> Arrays:
    """Returns the numbers."""
    return {self.key: array(self.shape, np.float32)}

  def fields(self, shape: tuple[int, int, int], latents: Latents) -> Mapping[str, tuple[int, ...]]:
    """Returns the field of its key."""
    return {self.key: self.shape}

  def prepare(self, sample: Fields) -> dict[str, np.ndarray]:
    """Returns a sample's numbers if it has them."""
    return {self.key: np.array(sample[self.key], np.float32)} if self.key in sample else {}

  @nn.compact
  def __call__(self, batch: Batch, drop: Bool[Array, ' b'], latents: Latents) -> Ports:
    if self.key not in batch:
      return Ports()
    numbers = batch[self.key].astype(jnp.float32).reshape(len(drop), -1)
    places = (numbers - self.centre) / self.unit
    x = jnp.concatenate([sinusoids(column) for column in places.T], axis=-1)
    x = Linear(self.dim, ('frequencies', 'embed'), dtype=self.dtype, name='into')(x)
    axes = ('embed', 'embed')
    x = Linear(self.dim, axes, initializer=ZEROS, dtype=self.dtype, name='out')(jax.nn.silu(x))
    none = jnp.all(numbers == 0, axis=1)
    return Ports(vector=jnp.where((drop | none)[:, None], 0, x))
