"""FrameChannels: known frames as channels beside those of the noisy latents, as Wan reads them."""

from typing import ClassVar

import jax.numpy as jnp
import numpy as np

from mgjax.core.configuration.keys import Fields
from mgjax.core.errors import ConfigError
from mgjax.core.settings import Fraction, Positive
from mgjax.core.typing import Array, Batch, Bool
from mgjax.models.conditioning.contract import Arrays, Latents, array
from mgjax.models.conditioning.frames import CLIP, FIRST, KNOWN, LAST, Frames
from mgjax.models.conditioning.ports import Ports

GREY = 127.5  # of bytes: 0 of pixels in [-1, 1]


class FrameChannels(Frames):
  """Appends [m; z] to the channels of X_t: a mask of known frames, then the latents of a clip.

  Unknown frames of the clip are grey. The first latent is of one frame, which the mask m counts
  `stride` times, the others are of `stride` frames. Rows that are dropped are zeros.

  Attributes:
    stride: frames of a latent, and channels of the mask.
    first, ends, prefix: shares of clips in training, as of `Frames`.
  """

  stride: Positive = 4
  first: Fraction = 1.0
  ends: Fraction = 0.0
  prefix: Fraction = 0.0
  needs: ClassVar[tuple[str, ...]] = (FIRST, LAST, CLIP)

  def requires(self, latents: Latents) -> Arrays:
    """Returns the latents of the clip of known frames, and for every frame whether it is known."""
    known = array((1 + (latents[0] - 1) * self.stride,), np.float32)
    return {CLIP: array(latents, np.float32), KNOWN: known}

  def clips(self, sample: Fields) -> dict[str, np.ndarray]:
    """Returns the clip of known frames, float16, in which bytes can be grey; none if not asked."""
    clip, known = self._known(sample)
    if known is None:
      return {}
    grey = np.full(clip.shape, GREY, np.float16)
    grey[known] = clip[known]
    return {CLIP: grey}

  def prepare(self, sample: Fields) -> dict[str, np.ndarray]:
    """Returns which frames are known."""
    known = sample.get(KNOWN) if 'latents' in sample else self._known(sample)[1]
    return {} if known is None else {KNOWN: np.asarray(known).astype(np.float32)}

  def __call__(self, batch: Batch, drop: Bool[Array, ' b'], latents: Latents) -> Ports:
    t, h, w, c = latents
    if CLIP not in batch:
      return Ports(channels=jnp.zeros((len(drop), t, h, w, self.stride + c), self.dtype))
    known = batch[KNOWN]
    if known.shape[1] != 1 + (t - 1) * self.stride:
      raise ConfigError(
        f'{known.shape[1]} frames are {t} latents, not 1 and {self.stride} each; set config.model.'
        f'conditionings.{self.name}.stride to the compression of the autoencoder'
      )
    first = jnp.repeat(known[:, :1], self.stride, axis=1)
    mask = jnp.concatenate([first, known[:, 1:]], axis=1).reshape(-1, t, 1, 1, self.stride)
    mask = jnp.broadcast_to(mask, (len(drop), t, h, w, self.stride))
    channels = jnp.concatenate([mask, batch[CLIP]], axis=-1).astype(self.dtype)
    there = jnp.any(known != 0, axis=1) & ~drop
    return Ports(channels=jnp.where(there.reshape(-1, 1, 1, 1, 1), channels, 0))
