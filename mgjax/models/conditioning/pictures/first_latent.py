"""FirstLatent: a picture as the first latent of a video, which stays as it is, as in Wan 2.2 5B."""

from collections.abc import Mapping
from typing import ClassVar

import jax.numpy as jnp
import numpy as np

from mgjax.core.configuration.keys import Fields
from mgjax.core.settings import Fraction
from mgjax.core.typing import Array, Batch, Bool
from mgjax.models.conditioning.contract import Arrays, Conditioning, Latents, array
from mgjax.models.conditioning.frames import FIRST, generator_of
from mgjax.models.conditioning.ports import Known, Ports

LATENT = 'first_latent'
KNOWN = 'first_known'


class FirstLatent(Conditioning):
  """Puts the latent of a picture in place of the first one of X_t; without it there is only text.

  It needs an autoencoder whose first latent is of the first frame alone.

  Attributes:
    share: of the clips of training whose first frame is known; of a single frame it never is.
  """

  share: Fraction = 0.5
  optional: ClassVar[bool] = True

  def requires(self, latents: Latents) -> Arrays:
    """Returns the latent (1 h w c) of the picture, and 1 if it is known."""
    return {LATENT: array((1, *latents[1:]), np.float32), KNOWN: array((), np.float32)}

  def fields(self, shape: tuple[int, int, int], latents: Latents) -> Mapping[str, tuple[int, ...]]:
    """Returns the first frame, and whether that of a clip is known."""
    return {FIRST: (1, *shape[1:], 3), KNOWN: ()}

  def encodes(self) -> tuple[str, ...]:
    """Names the latent of the picture."""
    return (LATENT,)

  def clips(self, sample: Fields) -> dict[str, np.ndarray]:
    """Returns the picture that was given, or the first frame of a clip, also if it is not known."""
    picture = sample.get(FIRST, sample.get('video'))
    if picture is None:
      return {}
    picture = np.asarray(picture)
    return {LATENT: picture.reshape(-1, *picture.shape[-3:])[:1]}

  def prepare(self, sample: Fields) -> dict[str, np.ndarray]:
    """Returns 1 if the first frame is known: if it was given, and of a share of the clips."""
    if KNOWN in sample:
      return {KNOWN: np.array(sample[KNOWN], np.float32)}
    if FIRST in sample:
      return {KNOWN: np.array(1, np.float32)}
    if 'video' not in sample:
      return {}
    video = np.asarray(sample['video'])
    drawn = generator_of(video[:1]).uniform()
    return {KNOWN: np.array(len(video) > 1 and drawn < self.share, np.float32)}

  def __call__(self, batch: Batch, drop: Bool[Array, ' b'], latents: Latents) -> Ports:
    if LATENT not in batch:
      return Ports()
    there = (batch[KNOWN] != 0) & ~drop
    first = jnp.where(there.reshape(-1, 1, 1, 1, 1), batch[LATENT], 0)
    every = jnp.pad(first, ((0, 0), (0, latents[0] - 1), (0, 0), (0, 0), (0, 0)))
    mask = there[:, None] & (jnp.arange(latents[0]) == 0)[None]
    return Ports(known=Known(every, mask))
