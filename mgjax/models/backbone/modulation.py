"""Adaptive normalisation from the flow time, shared by all layers (Movie Gen §3.1.3).

A modulation network in every layer would add 6 d^2 a layer and overshoot 30B by 10.9B. So one
network serves all layers and each adds its own table, which the paper states for its audio model.
The form in the video model is not in public sources.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp

from mgjax.core.typing import Array, Float
from mgjax.nn.linear import ZEROS, Linear
from mgjax.nn.sinusoidal_embedding import sinusoids


class TimeModulation(nn.Module):
  """time -> (embedding (b d), modulation (b 6 d)): shift, scale, gate of attention, then of FFN.

  The last map starts at zero, so at initialisation every gate is closed: self-attention and FFN add
  nothing (adaLN-Zero). Cross-attention and positions have no gate.
  """

  dim: int
  unit: float = 1.0  # of time, whose waves are those of 1
  dtype: jnp.dtype = jnp.float32

  @nn.compact
  def __call__(
    self, time: Float[Array, ' b'], vector: Float[Array, 'b d'] | None
  ) -> tuple[Float[Array, 'b d'], Float[Array, 'b 6 d']]:
    x = sinusoids(time / self.unit)
    x = Linear(self.dim, ('frequencies', 'embed'), dtype=self.dtype, name='into')(x)
    x = Linear(self.dim, ('embed', 'embed'), dtype=self.dtype, name='out')(jax.nn.silu(x))
    if vector is not None:
      x = x + vector.astype(x.dtype)
    axes = ('embed', 'modulation')
    shared = Linear(6 * self.dim, axes, initializer=ZEROS, dtype=self.dtype, name='shared')
    return x, shared(jax.nn.silu(x)).reshape(x.shape[0], 6, self.dim)


def modulate(
  x: Float[Array, 'b n d'], shift: Float[Array, 'b 1 d'], scale: Float[Array, 'b 1 d']
) -> Float[Array, 'b n d']:
  """Returns x (1 + scale) + shift."""
  return x * (1 + scale) + shift
