"""Masked audio prediction: the flow matching loss with part of the sound known (Movie Gen §6)."""

import jax
import jax.numpy as jnp

from mgjax.core.settings import Fraction, arguments
from mgjax.core.typing import Array, Batch, Bool, Float, Key, Metrics, Objective, Predict, Tree


def make_masked_objective(
  objective: Objective,
  *,
  full_mask_probability: Fraction = 0.5,
  min_masked_fraction: Fraction = 0.75,
  extension_probability: Fraction = 0.5,
) -> Objective:
  """Makes an objective with part of the latents as a condition, `batch['context']`.

  With `full_mask_probability` a row's context is empty, which trains generation. Otherwise a share
  of its frames drawn from U[`min_masked_fraction`, 1] is masked in one piece, and the rest is the
  context: what comes before the piece (extension), or before and after it (infilling). That it is
  one piece, and the uniform draw, are ours: which frames the paper masks, beside their share, is
  not in public sources. The loss is over all frames; over which ones the paper takes it is not
  there either.

  Args:
    full_mask_probability: probability of an empty context; 0.5 in the paper.
    min_masked_fraction: smallest share that is masked otherwise; 0.75 in the paper.
    extension_probability: of the rows with a context, how many have it before the masked piece
      alone; the others have it split at random. Not in public sources.

  Raises:
    ConfigError: a number is no probability.
  """
  settings = {
    'full_mask_probability': full_mask_probability,
    'min_masked_fraction': min_masked_fraction,
    'extension_probability': extension_probability,
  }
  arguments(make_masked_objective, settings, 'masking', ('objective',))

  def masked(predict: Predict, batch: Batch, key: Key, **frozen: Tree) -> tuple[Array, Metrics]:
    mask_key, flow_key = jax.random.split(key)
    latents = batch['latents']
    known = draw_known(mask_key, latents.shape[0], latents.shape[1], **settings)
    return objective(predict, batch | {'context': keep(latents, known)}, flow_key, **frozen)

  return masked


def keep(
  latents: Float[Array, 'b t h w c'], known: Bool[Array, 'b t']
) -> Float[Array, 'b t h w c']:
  """Returns the latents of the known frames, and zeros for the others."""
  return jnp.where(known[:, :, None, None, None], latents, 0)


def draw_known(
  key: Key,
  count: int,
  frames: int,
  *,
  full_mask_probability: float,
  min_masked_fraction: float,
  extension_probability: float,
) -> Bool[Array, 'b t']:
  """Draws which frames of each row are known; see `make_masked_objective`."""
  empty_key, share_key, kind_key, place_key = jax.random.split(key, 4)
  share = jax.random.uniform(share_key, (count,), minval=min_masked_fraction, maxval=1.0)
  known = jnp.floor((1 - share) * frames + 0.5)
  known = jnp.where(jax.random.bernoulli(empty_key, full_mask_probability, (count,)), 0, known)
  before = jnp.floor(jax.random.uniform(place_key, (count,)) * (known + 1))
  before = jnp.where(jax.random.bernoulli(kind_key, extension_probability, (count,)), known, before)
  frame_index = jnp.arange(frames)[None]
  begin = before[:, None]
  end = (before + frames - known)[:, None]
  return (frame_index < begin) | (frame_index >= end)
