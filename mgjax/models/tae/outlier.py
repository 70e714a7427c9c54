"""The outlier penalty, which keeps single latent places from carrying a whole frame (§3.1.1)."""

import jax.numpy as jnp

from mgjax.core.typing import Array, Float


def outlier_penalty(
  latents: Float[Array, 'b t h w c'], deviations: float = 3.0
) -> Float[Array, '']:
  """L_OPL(X, r) = 1 / (H W) sum_ij max(|X_ij - Mean(X)| - r |Std(X)|, 0), the mean over frames.

  X is one latent frame: Mean and Std are over its places, channel by channel, and |.| is the norm
  over channels. Frames are taken one by one, time folded into the batch (Movie Gen §3.1.1). Of
  posteriors X are the means: what the flow model will see.
  """
  distance, spread = distances(latents.astype(jnp.float32))
  return jnp.mean(jnp.maximum(distance - deviations * spread, 0))


def distances(
  latents: Float[Array, 'b t h w c'],
) -> tuple[Float[Array, 'b t h w'], Float[Array, 'b t 1 1']]:
  """Returns |X_ij - Mean(X)| of every place and |Std(X)| of every frame."""
  centred = latents - jnp.mean(latents, axis=(2, 3), keepdims=True)
  variance = jnp.mean(centred * centred, axis=(2, 3), keepdims=True)
  return _root(jnp.sum(centred * centred, axis=-1)), _root(jnp.sum(variance, axis=-1))


def _root(x: Array) -> Array:
  """The square root, with gradient 0 at 0: a frame of one colour must not make NaN."""
  positive = x > 0
  return jnp.where(positive, jnp.sqrt(jnp.where(positive, x, 1)), 0)
