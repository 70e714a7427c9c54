"""PictureTokens: states of CLIP's vision tower, of the first frame or of both ends of a clip."""

from collections.abc import Mapping
from typing import Annotated, ClassVar

import jax.numpy as jnp
import numpy as np

from mgjax.core.configuration.keys import Fields
from mgjax.core.errors import ConfigError
from mgjax.core.resize import resize
from mgjax.core.settings import Range
from mgjax.core.typing import Array, Batch, Bool
from mgjax.models.clip.towers import ClipVision
from mgjax.models.conditioning.contract import Arrays, Conditioning, Latents, array
from mgjax.models.conditioning.frames import FIRST, LAST
from mgjax.models.conditioning.ports import Ports

PICTURES = 'pictures'


class PictureTokens(Conditioning):
  """Reads pictures by a vision tower, whose states go to cross-attention beside the text.

  All states count, of the class token and of every patch, as the last layer leaves them. Published
  models read the states behind the last layer but one, so their tower has one layer less. The tower
  is part of this module, so that training may freeze it by `optimizer.rates`. A picture is brought
  to a square whatever its shape, as in training. Rows that are dropped or without pictures are
  zeros.

  Attributes:
    count: pictures: 1 for the first frame, 2 for the first and the last one.
  """

  vision: ClipVision
  count: Annotated[int, Range(least=1, most=2)] = 1
  optional: ClassVar[bool] = True

  @property
  def _shape(self) -> tuple[int, int, int, int]:
    return self.count, self.vision.size, self.vision.size, 3

  @property
  def _names(self) -> tuple[str, ...]:
    return (FIRST, LAST)[: self.count]

  def requires(self, latents: Latents) -> Arrays:
    """Returns the pictures (r h w 3)."""
    return {PICTURES: array(self._shape, np.uint8)}

  def fields(self, shape: tuple[int, int, int], latents: Latents) -> Mapping[str, tuple[int, ...]]:
    """Returns the first frame, and the last one if it is read; or both as the tower sees them."""
    return dict.fromkeys(self._names, (1, *shape[1:], 3)) | {PICTURES: self._shape}

  def prepare(self, sample: Fields) -> dict[str, np.ndarray]:
    """Returns the pictures that were given, else the ends of a clip; none if there is neither.

    Raises ConfigError if one of two is missing.
    """
    if PICTURES in sample:
      return {PICTURES: np.asarray(sample[PICTURES]).astype(np.uint8)}
    if given := [name for name in self._names if name in sample]:
      if missing := [name for name in self._names if name not in sample]:
        raise ConfigError(f'the model reads {missing[0]!r} beside {given[0]!r}; give both')
      pictures = [np.asarray(sample[name]) for name in given]
    elif 'video' in sample:
      pictures = [np.asarray(sample['video'])[index] for index in (0, -1)[: self.count]]
    else:
      return {}
    pictures = np.stack([picture.reshape(picture.shape[-3:]) for picture in pictures])
    return {PICTURES: resize(pictures, self._shape[1:3], 'bicubic')}

  def __call__(self, batch: Batch, drop: Bool[Array, ' b'], latents: Latents) -> Ports:
    pictures = batch.get(PICTURES)
    if pictures is None:
      pictures = jnp.zeros((len(drop), *self._shape), jnp.uint8)
    b, r = pictures.shape[:2]
    there = jnp.any(pictures != 0, axis=(1, 2, 3, 4)) & ~drop
    flat = pictures.reshape(b * r, *pictures.shape[2:]).astype(jnp.float32) / 255
    states, _ = self.vision(flat)
    states = states.reshape(b, -1, states.shape[-1])
    return Ports(picture=jnp.where(there[:, None, None], states, 0))
