"""CLIP's two towers side by side, with the temperature between them."""

import math
from collections.abc import Mapping
from typing import Annotated, Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from mgjax.clip.towers import ClipText, ClipVision, clip_inputs
from mgjax.core.errors import ConfigError
from mgjax.core.settings import Range, unpack
from mgjax.core.typing import Array, Bool, Float, Int
from mgjax.nn.linear import parameter

HIGHEST = 100.0  # of the scale, as OpenAI trained


class ClipModel(nn.Module):
  """Images and texts as unit vectors of one space, and the scale of their products.

  I = f(image) / |f(image)|,  T = g(text) / |g(text)|,  s = min(exp(log_scale), 100)

  f and g are the towers; s, the inverse of the temperature, is learned (Radford et al. 2021).

  Attributes:
    text: its tower g.
    vision: its tower f.
    temperature: 1 / s at the beginning.
  """

  text: ClipText
  vision: ClipVision
  temperature: Annotated[float, Range(least=1 / HIGHEST, most=1)] = 0.07

  @nn.compact
  def __call__(
    self,
    images: Float[Array, 'b h w 3'],
    tokens: Int[Array, '_n m'],
    mask: Bool[Array, '_n m'],
  ) -> tuple[Float[Array, 'b p'], Float[Array, '_n p'], Float[Array, '']]:
    """Returns I of images in [0, 1], T of tokens, of which `mask` says the text's own, and s."""
    start = jax.nn.initializers.constant(-math.log(self.temperature))
    log_scale = parameter(self, 'log_scale', start, (), ())
    scale = jnp.exp(jnp.minimum(log_scale, math.log(HIGHEST)))
    return self.see(images), self.read(tokens, mask), scale

  def see(self, images: Float[Array, 'b h w 3']) -> Float[Array, 'b p']:
    """Returns I of images in [0, 1]."""
    return normalised(self.vision(images)[1])

  def read(self, tokens: Int[Array, 'b m'], mask: Bool[Array, 'b m']) -> Float[Array, 'b p']:
    """Returns T of tokens, of which `mask` says the text's own."""
    return normalised(self.text(tokens, mask)[1])


def normalised(vectors: Float[Array, 'b p']) -> Float[Array, 'b p']:
  """Returns vectors of length 1, in float32."""
  vectors = vectors.astype(jnp.float32)
  return vectors * jax.lax.rsqrt((vectors**2).sum(axis=-1, keepdims=True) + 1e-12)


def clip_model_inputs(model: ClipModel) -> tuple[Array, ...]:
  """Returns what `init` wants beside a key."""
  return (*clip_inputs(model.vision), *clip_inputs(model.text))


def make_clip_model(fields: Mapping[str, Any]) -> ClipModel:
  """Makes the module that a configuration's `model` describes.

  Raises:
    ConfigError: a field is unknown or out of its range, or the towers end in different spaces.
  """
  model = unpack(ClipModel, fields, 'model')
  text, vision = model.text.projection, model.vision.projection
  if text is None or text != vision:
    raise ConfigError(
      f'model.text.projection = {text}, model.vision.projection = {vision}; expected one number '
      'for both, the size of the space that they share'
    )
  return model
