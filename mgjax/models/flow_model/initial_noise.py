"""Draws the initial noise X_0 of samples: a function of the seed and of a sample's own index."""

import functools
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np

from mgjax.core.seeds import key_of, seed_words
from mgjax.core.typing import Array, Float, Int, UInt32


def draw_noise(seed: int, indices: np.ndarray, shape: tuple[int, ...]) -> Float[Array, 'b t h w c']:
  """Draws X_0 of each sample from (seed, its own index) alone.

  A sample therefore stays the same whatever else is in its batch, and in any order.
  """
  return draw(*seeds_of(seed, indices), shape=shape)


def seeds_of(seed: int | Sequence[int], indices: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
  """Returns the arrays that `draw` takes; a sequence has a seed for each index.
  Raises ConfigError for a seed that is out of its range.
  """
  return seed_words(seed), np.asarray(indices, np.int32)


@functools.partial(jax.jit, static_argnames='shape')
def draw(
  seed: UInt32[Array, '*seeds 2'], indices: Int[Array, 'b'], *, shape: tuple[int, ...]
) -> Float[Array, 'b t h w c']:
  """Draws noise as `draw_noise`, in one program."""
  seeds = jnp.broadcast_to(seed, (*indices.shape, 2))
  keys = jax.vmap(lambda seed, index: jax.random.fold_in(key_of(seed), index))(seeds, indices)
  return jax.vmap(lambda key: jax.random.normal(key, shape, jnp.float32))(keys)
