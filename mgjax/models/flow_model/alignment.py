"""Alignment of a middle layer to features of the frozen autoencoder, checked by
tests/models/flow_model/test_alignment.py.

A run has the autoencoder anyway (SRA 2, Wang et al. 2026, arXiv 2601.17830). REPA (Yu et al. 2024,
arXiv 2410.06940) takes an encoder of images. Not in the paper.
"""

import dataclasses
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from mgjax.core.errors import ConfigError
from mgjax.core.settings import Fraction, Magnitude, Positive, check
from mgjax.core.typing import Array, Batch, Float, Key, Metrics, Objective, Predict, Tree
from mgjax.nn.conv import SpatialConv
from mgjax.nn.patch import Patch, patchify

NAME = 'alignment'  # of the projector among parameters
_LATENTS = 'latents'
DECODER = 'decoder'
_SMALL = 1e-6

# Parameters of the autoencoder and of a CLIP, latents -> (b n f).
Features = Callable[[tuple[Tree, Tree], Array], Array]


@dataclasses.dataclass(frozen=True)
class Alignment:
  """`config.objective.alignment`: which features the tokens behind which layer learn to tell.

  Attributes:
    features: 'latents', the clean latents themselves, 'decoder', what the decoder of the
      autoencoder makes of them before it enlarges them, in which places know their neighbours, or
      the folder of a CLIP, as 'solids/objects': states of its patches in a token's first frame.
    layer: of the backbone, counted from 1.
    weight: of the term in the loss.
    gamma: how much of the mean over a clip's tokens is taken from its features, which are then
      divided by their deviation over them (iREPA, Singh et al. 2025, arXiv 2512.10794): what all
      tokens share is little help for where things are.

  Raises:
    ConfigError: there are no such features, or a value is out of its range.
  """

  features: str = _LATENTS
  layer: Positive = 2
  weight: Magnitude = 0.5
  gamma: Fraction = 1.0

  def __post_init__(self):
    check(self)
    if self.features not in (_LATENTS, DECODER) and '/' not in self.features:
      raise ConfigError(
        f'objective.alignment.features = {self.features!r}; expected {_LATENTS!r} or {DECODER!r} '
        "or a CLIP, as 'solids/objects'"
      )


class Projector(nn.Module):
  """Tokens -> features: one 3 x 3 convolution of a frame's tokens, as iREPA's.

  It serves training alone: no pipeline has one, no other run takes it over, and no export.
  """

  features: int
  dtype: jnp.dtype = jnp.float32

  @nn.compact
  def __call__(self, tokens: Float[Array, 'b n d'], sizes: Patch) -> Float[Array, 'b n f']:
    """Returns the features that tokens of a grid (t, h, w) tell."""
    rows, count, width = tokens.shape
    frames = tokens.reshape(rows, *sizes, width)
    return SpatialConv(self.features, dtype=self.dtype, name='conv')(frames).reshape(
      rows, count, self.features
    )


def make_features(
  settings: Alignment, codec: Any, patch: Patch, see: Any = None, tower: Tree = None
) -> tuple[Features, int]:
  """Returns the function from latents to features of their patches, and how many these are.

  `codec` is the autoencoder with its statistics, `see` of `make_patches` of a CLIP with its
  parameters `tower`. Raises ConfigError for an autoencoder of sound, which has latents alone.
  """

  def seen(known: tuple[Tree, Tree], latents: Array) -> Array:
    frames = codec.decode_tile(known[0], latents)[:, :: codec.model.compression[0] * patch[0]]
    states = see(known[1], frames.reshape(-1, *frames.shape[2:]) / 2 + 0.5)
    places = (latents.shape[2] // patch[1], latents.shape[3] // patch[2], states.shape[-1])
    states = jax.image.resize(states, (len(states), *places), 'linear')
    return states.reshape(len(latents), -1, places[-1])

  if settings.features != _LATENTS and not hasattr(codec, 'features'):
    raise ConfigError(
      f'objective.alignment.features = {settings.features!r} with {type(codec).__name__}; expected '
      f'{_LATENTS!r}: only autoencoders of videos have others'
    )
  features = {
    _LATENTS: lambda known, latents: patchify(latents, patch),
    DECODER: lambda known, latents: patchify(codec.features(known[0], latents), patch),
  }.get(settings.features, seen)
  latents = jax.ShapeDtypeStruct((1, *patch, codec.model.latent_channels), jnp.float32)
  return features, jax.eval_shape(features, (codec.params, tower), latents).shape[-1]


def align(
  objective: Objective, settings: Alignment, features: Features
) -> Callable[..., tuple[Array, Metrics]]:
  """Makes an objective that adds the term of alignment, `weight` of

    E [ 1 - cos(P(h_n), y_n) ],   y = (z - gamma mean(z)) / std(z) over the n tokens of a clip

  to another one: h are the tokens behind a layer, P a `Projector`, z the features of clean latents.

  The model is one with a projector. What it returns takes `autoencoder`, the frozen parameters that
  `features` reads, as one argument more. Its metrics have `similarity`, the mean cosine.
  """

  def aligned(
    predict: Predict, batch: Batch, key: Key, autoencoder: Tree = None
  ) -> tuple[Array, Metrics]:
    projections = []

    def tapped(x: Array, time: Array, batch: Batch, drop: object) -> Array:
      velocity, projected = predict(x, time, batch, drop, settings.layer)
      projections.append(projected)
      return velocity

    loss, metrics = objective(tapped, batch, key)
    latents = batch['latents'].astype(jnp.float32)
    target = _normalised(features(autoencoder, latents), settings.gamma)
    similarity = cosine(projections[0].astype(jnp.float32), jax.lax.stop_gradient(target)).mean()
    return loss + settings.weight * (1 - similarity), metrics | {'similarity': similarity}

  return aligned


def _normalised(features: Float[Array, 'b n f'], gamma: float) -> Float[Array, 'b n f']:
  """Returns (z - gamma mean(z)) / std(z), mean and deviation over the n tokens of a clip."""
  mean = jnp.mean(features, axis=1, keepdims=True)
  deviation = jnp.std(features, axis=1, keepdims=True)
  return (features - gamma * mean) / (deviation + _SMALL)


def cosine(one: Float[Array, '... f'], two: Float[Array, '... f']) -> Float[Array, '...']:
  """Returns the cosine of the angle between vectors of the last axis, 0 where one is nothing."""
  squares = jnp.sum(one * one, -1) * jnp.sum(two * two, -1)
  return jnp.sum(one * two, -1) * jax.lax.rsqrt(squares + _SMALL**2)


def without_projector(params: Tree) -> Tree:
  """Returns the parameters of a model without those of a projector, if it has one."""
  return {name: tree for name, tree in params.items() if name != NAME}
