"""FirstLatent: a picture as the first latent of a video, which stays as it is, as in Wan 2.2 5B."""

import hashlib
from collections.abc import Mapping
from typing import ClassVar

import jax.numpy as jnp
import numpy as np

from mgjax.core.configuration.keys import Fields
from mgjax.core.settings import Fraction
from mgjax.core.typing import Array, Batch, Bool
from mgjax.models.conditioning.contract import Arrays, Conditioning, Latents, array
from mgjax.models.conditioning.frames import FIRST
from mgjax.models.conditioning.ports import Known, Ports

LATENT = 'first_latent'


class FirstLatent(Conditioning):
  """Puts the latent of a picture in place of the first one of X_t; without it there is only text.

  It needs an autoencoder whose first latent is of the first frame alone.

  Attributes:
    share: of the clips of training whose first frame is known; of a single frame it never is.
  """

  share: Fraction = 0.5
  optional: ClassVar[bool] = True

  def requires(self, latents: Latents) -> Arrays:
    """Returns the latent (1 h w c) of the picture."""
    return {LATENT: array((1, *latents[1:]), np.float32)}

  def fields(self, shape: tuple[int, int, int], latents: Latents) -> Mapping[str, tuple[int, ...]]:
    """Returns the first frame."""
    return {FIRST: (1, *shape[1:], 3)}

  def encodes(self) -> tuple[str, ...]:
    """Names the latent of the picture."""
    return (LATENT,)

  def clips(self, sample: Fields) -> dict[str, np.ndarray]:
    """Returns the picture that was given; of a share of the clips of training the first frame."""
    if FIRST in sample:
      picture = np.asarray(sample[FIRST])
      return {LATENT: picture.reshape(1, *picture.shape[-3:])}
    if 'video' not in sample or len(sample['video']) == 1:
      return {}
    first = np.ascontiguousarray(sample['video'][:1])
    digest = hashlib.sha256(first).digest()
    drawn = np.random.default_rng(int.from_bytes(digest[:8])).uniform()
    return {LATENT: first} if drawn < self.share else {}

  def __call__(self, batch: Batch, drop: Bool[Array, ' b'], latents: Latents) -> Ports:
    if LATENT not in batch:
      return Ports()
    first = batch[LATENT]
    there = jnp.any(first != 0, axis=(1, 2, 3, 4)) & ~drop
    first = jnp.where(there.reshape(-1, 1, 1, 1, 1), first, 0)
    every = jnp.pad(first, ((0, 0), (0, latents[0] - 1), (0, 0), (0, 0), (0, 0)))
    mask = there[:, None] & (jnp.arange(latents[0]) == 0)[None]
    return Ports(known=Known(every, mask))
