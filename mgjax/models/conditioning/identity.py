"""Identity: who a video shows, from masked pictures of them (Movie Gen §4)."""

from collections.abc import Mapping
from typing import ClassVar

import flax.linen as nn
import jax.numpy as jnp
import numpy as np

from mgjax.core.configuration.keys import Fields
from mgjax.core.errors import ConfigError
from mgjax.core.resize import resize
from mgjax.core.settings import Positive
from mgjax.core.typing import Array, Batch, Bool
from mgjax.models.clip.towers import ClipVision
from mgjax.models.conditioning.contract import Arrays, Conditioning, Latents, array
from mgjax.models.conditioning.ports import Ports
from mgjax.nn.linear import Linear
from mgjax.nn.norm import LayerNorm

REFERENCE_KEY = 'reference'
_TOKENS = ('class', 'patches', 'both')


class Identity(Conditioning):
  """Reads masked pictures of a person by a vision tower; its states are context beside the text's.

  context = [text; LayerNorm(W_c f_c(reference_1)); LayerNorm(W f(reference_1)); ...]

  f is the vision tower of CLIP, part of this module, so that a stage of training may freeze it or
  train it by `optimizer.rates`. A picture outside the mask is black, and one that is all black is
  not there: its tokens are masked, and a text-to-video model to which this is added answers as
  before. (Behind a gate that starts at zero, training is half as fast:
  docs/experiments/digits_personalization.md.) W_c makes several tokens of the state f_c of the
  class token: alone among those of text and patches it is hardly read. The patches' states go
  through W one by one.

  Attributes:
    references: pictures that are read, at most; of more the first.
    tokens: which states of the tower are read: of its 'class' token, of its 'patches' or 'both'.
      Not in public sources.
    class_tokens: that are made of the state of the class token. Not in public sources.

  Raises:
    ConfigError: there are no such tokens.
  """

  vision: ClipVision
  dim: int
  references: Positive = 1
  tokens: str = 'both'
  class_tokens: Positive = 1
  dtype: jnp.dtype = jnp.float32
  optional: ClassVar[bool] = True

  @property
  def shape(self) -> tuple[int, int, int, int]:
    """Of the pictures (r h w 3)."""
    return self.references, self.vision.size, self.vision.size, 3

  def requires(self, latents: Latents) -> Arrays:
    """Returns the pictures (r h w 3), black where there is none."""
    return {REFERENCE_KEY: array(self.shape, np.uint8)}

  def fields(self, shape: tuple[int, int, int], latents: Latents) -> Mapping[str, tuple[int, ...]]:
    """Returns the field 'reference' (r h w 3)."""
    return {REFERENCE_KEY: self.shape}

  def prepare(self, sample: Fields) -> dict[str, np.ndarray]:
    """Returns a sample's 'reference' if it has one, pictures (_ h w 3) of any number and size."""
    if REFERENCE_KEY not in sample:
      return {}
    pictures = np.zeros(self.shape, np.uint8)
    references = resize(
      np.asarray(sample[REFERENCE_KEY])[: self.references], self.shape[1:3], 'bicubic'
    )
    pictures[: len(references)] = references
    return {REFERENCE_KEY: pictures}

  @nn.compact
  def __call__(self, batch: Batch, drop: Bool[Array, ' b'], latents: Latents) -> Ports:
    if self.tokens not in _TOKENS:
      raise ConfigError(f'{self.name}.tokens = {self.tokens!r}; expected {", ".join(_TOKENS)}')
    if REFERENCE_KEY not in batch:
      return Ports()
    pictures = jnp.where(drop[:, None, None, None, None], 0, batch[REFERENCE_KEY])
    there = jnp.any(pictures > 0, axis=(2, 3, 4))
    b, r = there.shape
    flat = pictures.reshape(b * r, *pictures.shape[2:]).astype(jnp.float32) / 255
    states, _ = self.vision(flat)
    axes = ('hidden', 'embed')
    states = states.astype(self.dtype)
    parts = []
    if self.tokens != 'patches':
      spread = Linear(self.class_tokens * self.dim, axes, dtype=self.dtype, name='project_class')
      parts.append(spread(states[:, 0]).reshape(-1, self.class_tokens, self.dim))
    if self.tokens != 'class':
      parts.append(Linear(self.dim, axes, dtype=self.dtype, name='project')(states[:, 1:]))
    x = jnp.concatenate(parts, axis=1)
    x = LayerNorm(dtype=self.dtype, name='project_norm')(x)
    mask = jnp.repeat(there, x.shape[1], axis=1)
    return Ports(context=x.reshape(b, -1, self.dim), context_mask=mask)
