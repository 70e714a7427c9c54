"""Latents that decode to known frames."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from mgjax.core.typing import Array, Float, Num, Tree
from mgjax.models.tae.latents import LatentCodec, to_unit

_RATE = 0.05  # of Adam, in standard deviations of the latents
Fit = Callable[[Array, np.ndarray, np.ndarray], Array]


def make_fit(codec: LatentCodec, steps: int) -> Fit:
  """Makes `fit(latents, clip, known) -> latents`, which moves z_0 towards what decodes to a clip x.

  An autoencoder compresses time, so that a known frame is no whole latent that could be put in
  place of a generated one. What is sought is the mode of a posterior around what a model made,

    argmin_z  sum over known frames |D(z) - x|^2 + |z - z_0|^2,

  pixels in [-1, 1] and latents normalised, by a few steps of Adam from z_0. Tiles of time are
  fitted by themselves; those without a known frame, and rows without one, are left as they are.
  The weights of the two terms are not in public sources. D is the codec's decoder; 0 `steps` leave
  latents as they are.

  Returns:
    A function of latents (b t h w c), a clip of bytes (b u i j 3), and which of its frames are
    known (b u), 1 for those.
  """
  step, *_ = codec.model.compression
  length = codec.tiling.frames // step

  @jax.jit
  def move(
    params: Tree,
    start: Float[Array, 'b t h w c'],
    clip: Num[Array, 'b u i j 3'],
    known: Float[Array, 'b u'],
  ) -> Float[Array, 'b t h w c']:
    import optax  # which those who sample without known frames need not wait for

    optimizer = optax.adam(_RATE)
    start = start.astype(jnp.float32)

    def distance(latents: Array) -> Array:
      reconstruction = codec.decode_tile(params, latents, size=clip.shape[2:4])[:, : clip.shape[1]]
      errors = jnp.square(reconstruction - to_unit(clip)) * known[:, :, None, None, None]
      return jnp.sum(errors) + jnp.sum(jnp.square(latents - start))

    def advance(carry: tuple[Array, optax.OptState], _: None) -> tuple[tuple, None]:
      latents, state = carry
      updates, state = optimizer.update(jax.grad(distance)(latents), state)
      return (latents + updates, state), None

    (latents, _), _ = jax.lax.scan(advance, (start, optimizer.init(start)), length=steps)
    return latents

  def fit(latents: Array, clip: np.ndarray, known: np.ndarray) -> Array:
    # which may be filled up to whole latents
    parts = []
    known = known[:, : clip.shape[1]]
    for begin in range(0, latents.shape[1], length):
      part = latents[:, begin : begin + length]
      frames = slice(begin * step, (begin + length) * step)
      if steps and known[:, frames].any():
        part = move(codec.params, part, clip[:, frames], known[:, frames])
      parts.append(part)
    return jnp.concatenate(parts, axis=1)

  return fit
