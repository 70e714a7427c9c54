"""Noise that belongs to frames and not to windows or batches."""

import functools

import jax
import jax.numpy as jnp
import numpy as np

from mgjax.core.seeds import key_of, seed_words
from mgjax.core.typing import Array, Float


def frame_noise(
  seed: int, samples: np.ndarray, start: int, stop: int, shape: tuple[int, ...]
) -> Float[Array, 'b t *axes']:
  """Draws X_0 ~ N(0, 1) of the frames from `start` to `stop`, each of `shape`, a row a sample.

  The noise of a frame depends on (seed, sample, frame) alone, not on the window it is in.
  """
  frames = np.arange(start, stop, dtype=np.uint32)
  return _draw(key_of(jnp.asarray(seed_words(seed))), np.asarray(samples, np.uint32), frames, shape)


@functools.partial(jax.jit, static_argnums=3)
def _draw(key: Array, samples: Array, frames: Array, shape: tuple[int, ...]) -> Array:
  def one(sample: Array, frame: Array) -> Array:
    own = jax.random.fold_in(jax.random.fold_in(key, sample), frame)
    return jax.random.normal(own, shape, jnp.float32)

  along = jax.vmap(one, in_axes=(None, 0))
  return jax.vmap(along, in_axes=(0, None))(samples, frames)
