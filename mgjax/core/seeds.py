"""Seeds of noise: integers of 63 bits, each with its own noise.

`jax.random.key` silently drops all but the lower 32 bits on a device, so 2^32 would give the noise
of 0.
"""

import jax
import jax.numpy as jnp
import numpy as np

from mgjax.core.settings import Seed, checked
from mgjax.core.typing import Array, Key, UInt32

_BITS = 32


def words_of(seed: object) -> UInt32[np.ndarray, '*seeds 2']:
  """Splits a seed, or each of an array of seeds, into its upper and lower 32 bits.

  Raises ConfigError if a seed is not an integer from 0 to 2^63 - 1.
  """
  seeds = np.asarray(seed, object)
  integers = [int(checked(Seed, value, 'seed')) for value in seeds.ravel()]
  words = [(value >> _BITS, value & (1 << _BITS) - 1) for value in integers]
  return np.array(words, np.uint32).reshape(*seeds.shape, 2)


def key_of(words: UInt32[Array, '2']) -> Key:
  """Returns the PRNG key of a seed's two words; below 2^32 it equals `jax.random.key`."""
  upper, lower = words
  key = jax.random.key(lower)
  return jnp.where(upper == 0, key, jax.random.fold_in(key, upper))
