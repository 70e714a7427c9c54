"""Seeds of noise: whole numbers of 63 bits, of which each has noise of its own.

A device has 32 bits for a whole number, and `jax.random.key` drops the others without a word: 2^32
would have the noise of 0.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from mgjax.core.settings import Seed, checked
from mgjax.core.typing import Array, Key, UInt32

_BITS = 32


def words_of(seed: Any) -> UInt32[np.ndarray, '*seeds 2']:
  """Returns a seed, or each of several, as two words: the upper 32 bits and the lower ones.
  Raises ConfigError for what is no whole number from 0 to 2^63 - 1.
  """
  given = np.asarray(seed, object)
  whole = [int(checked(Seed, each, 'seed')) for each in given.ravel()]
  words = [(each >> _BITS, each & (1 << _BITS) - 1) for each in whole]
  return np.array(words, np.uint32).reshape(*given.shape, 2)


def key_of(words: UInt32[Array, '2']) -> Key:
  """Returns the key of a seed; below 2^32 it is that of `jax.random.key`."""
  upper, lower = words
  key = jax.random.key(lower)
  return jnp.where(upper == 0, key, jax.random.fold_in(key, upper))
