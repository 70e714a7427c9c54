"""CLIP's two towers side by side, with the temperature between them."""

import math
from typing import Annotated

import flax.linen as nn
import jax
import jax.numpy as jnp

from mgjax.core.configuration.keys import Fields
from mgjax.core.errors import ConfigError
from mgjax.core.settings import Count, Range, unpack
from mgjax.core.typing import Array, Bool, Float, Int
from mgjax.models.clip.towers import ClipText, ClipVision, clip_inputs
from mgjax.nn.linear import Linear, parameter
from mgjax.nn.norm import LayerNorm

HIGHEST = 100.0  # of the scale, as OpenAI trained


class ClipModel(nn.Module):
  """Images and texts as unit vectors of one space, and the scale of their products.

  I = f(image) / |f(image)|,  T = g(text) / |g(text)|,  s = min(exp(log_scale), 100)

  f and g are the towers; s, the inverse of the temperature, is learned (Radford et al. 2021). With
  `identity` a head h of the image tower makes a second unit vector, J = h(image) / |h(image)|. It
  describes who or what is seen, which captions do not say, and has its own scale s'. A separate
  head leaves I to the captions, as in SLIP (Mu et al. 2022).
  """

  text: ClipText
  vision: ClipVision
  # 1 / s at the beginning, and 1 / s'.
  temperature: Annotated[float, Range(least=1 / HIGHEST, most=1)] = 0.07
  identity: Count = 0  # size q of J; 0 has none

  def setup(self):
    start = jax.nn.initializers.constant(-math.log(self.temperature))
    self.log_scale = parameter(self, 'log_scale', start, (), ())
    if self.identity:
      self.identity_log_scale = parameter(self, 'identity_log_scale', start, (), ())
      self.identity_head = _IdentityHead(self.identity, self.vision.epsilon, self.vision.dtype)

  def __call__(
    self, images: Float[Array, 'b h w 3'], tokens: Int[Array, '_n m'], mask: Bool[Array, '_n m']
  ) -> tuple[Array, ...]:
    """Returns I of images in [0, 1], T of tokens, of which `mask` says the text's own, and s.

    With `identity` also J of the images and s'.
    """
    states, projected = self.vision(images)
    vectors = _normalised(projected), self.read(tokens, mask), _scale(self.log_scale)
    if not self.identity:
      return vectors
    return *vectors, self.identity_head(states), _scale(self.identity_log_scale)

  def recognise(self, images: Float[Array, 'b h w 3']) -> Float[Array, 'b q']:
    """Returns J of images in [0, 1]."""
    return self.identity_head(self.vision(images)[0])

  def see(self, images: Float[Array, 'b h w 3']) -> Float[Array, 'b p']:
    """Returns I of images in [0, 1]."""
    return _normalised(self.vision(images)[1])

  def read(self, tokens: Int[Array, 'b m'], mask: Bool[Array, 'b m']) -> Float[Array, 'b p']:
    """Returns T of tokens, of which `mask` says the text's own."""
    return _normalised(self.text(tokens, mask)[1])


class _IdentityHead(nn.Module):
  """J from the class token of the last layer, with a norm and a projection of its own."""

  size: int
  epsilon: float
  dtype: jnp.dtype

  @nn.compact
  def __call__(self, states: Float[Array, 'b n e']) -> Float[Array, 'b q']:
    pooled = LayerNorm(self.epsilon, self.dtype, name='norm')(states[:, 0])
    project = Linear(self.size, ('hidden', 'embed'), dtype=self.dtype, name='project')
    return _normalised(project(pooled))


def _scale(log_scale: Float[Array, '']) -> Float[Array, '']:
  return jnp.exp(jnp.minimum(log_scale, math.log(HIGHEST)))


def _normalised(vectors: Float[Array, 'b p']) -> Float[Array, 'b p']:
  """Returns vectors of length 1, in float32."""
  vectors = vectors.astype(jnp.float32)
  return vectors * jax.lax.rsqrt((vectors**2).sum(axis=-1, keepdims=True) + 1e-12)


def clip_model_inputs(model: ClipModel) -> tuple[Array, ...]:
  """Returns what `init` wants beside a key."""
  return (*clip_inputs(model.vision), *clip_inputs(model.text))


def make_clip_model(fields: Fields) -> ClipModel:
  """Makes the module that a configuration's `model` describes, or raises ConfigError."""
  model = unpack(ClipModel, fields, 'model')
  text, vision = model.text.projection, model.vision.projection
  if text is None or text != vision:
    raise ConfigError(
      f'model.text.projection = {text}, model.vision.projection = {vision}; expected one number '
      'for both, the size of the space that they share'
    )
  return model
