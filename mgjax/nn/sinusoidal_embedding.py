"""Sinusoidal embeddings of a number, as of the flow time."""

import jax.numpy as jnp

from mgjax.core.typing import Array, Float

FREQUENCIES = 256  # not in public sources


def sinusoids(time: Float[Array, ' b'], count: int = FREQUENCIES) -> Float[Array, 'b k']:
  """Returns [cos(1000 t w_i), sin(1000 t w_i)] with w_i = 10000^(-i / (count / 2)), in float32.

  The lowest frequency is nearly constant over [0, 1] and acts as a bias.
  """
  half = count // 2
  frequencies = 10000.0 ** (-jnp.arange(half, dtype=jnp.float32) / half)
  angles = 1000.0 * time.astype(jnp.float32)[:, None] * frequencies[None, :]
  return jnp.concatenate([jnp.cos(angles), jnp.sin(angles)], axis=-1)
