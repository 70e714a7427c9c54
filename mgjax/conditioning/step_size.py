"""StepSize: how large a step the model is asked for (Frans et al. 2024; flow/few_steps.py)."""

from collections.abc import Mapping
from typing import Any, ClassVar

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from mgjax.conditioning.contract import Arrays, Conditioning, Latents, array
from mgjax.conditioning.ports import Ports
from mgjax.core.typing import Array, Batch, Bool
from mgjax.flow.few_steps import STEP
from mgjax.nn.linear import ZEROS, Linear
from mgjax.nn.sinusoids import sinusoids


class StepSize(Conditioning):
  """Adds V silu(W sinusoids(s)) to the embedding of time, s the share of the way that a step takes.

  V starts at zero and s = 0, which is the velocity's, adds nothing: a model to which this is added
  answers as before, bit for bit. Objective and sampler put s into their batches; samples have none.

  Attributes:
    dim: model width d.
    dtype: compute type.
  """

  dim: int
  dtype: jnp.dtype = jnp.float32
  optional: ClassVar[bool] = True

  def requires(self, latents: Latents) -> Arrays:
    """Returns the share s."""
    del latents
    return {STEP: array((), np.float32)}

  def fields(self, shape: tuple[int, int, int], latents: Latents) -> Mapping[str, tuple[int, ...]]:
    """Returns the field 'step_size', a number."""
    del shape, latents
    return {STEP: ()}

  def prepare(self, sample: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """Returns a sample's share if it has one."""
    return {STEP: np.array(sample[STEP], np.float32)} if STEP in sample else {}

  @nn.compact
  def __call__(self, batch: Batch, drop: Bool[Array, ' b'], latents: Latents) -> Ports:
    if STEP not in batch:
      return Ports()
    size = batch[STEP].astype(jnp.float32)
    x = Linear(self.dim, ('frequencies', 'embed'), dtype=self.dtype, name='into')(sinusoids(size))
    axes = ('embed', 'embed')
    x = Linear(self.dim, axes, initializer=ZEROS, dtype=self.dtype, name='out')(jax.nn.silu(x))
    return Ports(vector=jnp.where((drop | (size == 0))[:, None], 0, x))
