"""Frames: known frames of a video, from which the others are made."""

import hashlib
from collections.abc import Mapping
from typing import Any, ClassVar

import flax.linen as nn
import jax.numpy as jnp
import numpy as np

from mgjax.core.configuration.keys import Fields
from mgjax.core.errors import ConfigError
from mgjax.core.settings import Fraction, Positive
from mgjax.core.typing import Array, Batch, Bool, UInt8
from mgjax.models.conditioning.contract import Arrays, Conditioning, Latents, array
from mgjax.models.conditioning.ports import Ports
from mgjax.nn.linear import ZEROS, Linear
from mgjax.nn.patch import Patch, patchify

CLIP = 'known_frames'
KNOWN = 'known'
FIRST = 'first_frame'
LAST = 'last_frame'


class Frames(Conditioning):
  """Adds known frames to the tokens: a picture to animate, both ends of a clip, or its beginning.

  A codec compresses time, so a known frame is only part of a latent. Therefore the codec encodes a
  clip in which every unknown frame is the nearest known one. A mask m is appended to its latents z,
  with a channel for each of the `stride` frames of a latent:

    tokens = W patchify([z; m]), zero where nothing is known

  W starts at zero, so that a text-to-video model to which this is added answers as before. What is
  known of a sample of training is drawn as a function of its clip, by shares that are not in public
  sources; of what is left over, and of pictures, nothing is known. A record of latents therefore
  holds one draw.

  Attributes:
    stride: frames of a latent, the autoencoder's compression of time.
    first: share of the clips of which the first frame is known.
    ends: share of those of which the first and the last one are.
    prefix: share of those of which any number of first frames is.

  Raises:
    ConfigError: the shares are more than all.
  """

  dim: int
  patch: Patch
  stride: Positive = 8
  first: Fraction = 0.3
  ends: Fraction = 0.15
  prefix: Fraction = 0.3
  dtype: jnp.dtype = jnp.float32
  optional: ClassVar[bool] = True

  def __post_init__(self):
    if self.first + self.ends + self.prefix > 1:
      raise ConfigError(
        f'first + ends + prefix = {self.first} + {self.ends} + {self.prefix}; expected shares that '
        'add up to 1 at most'
      )
    super().__post_init__()

  def requires(self, latents: Latents) -> Arrays:
    """Returns the latents of the clip of known frames, and for every frame whether it is known."""
    known = array((latents[0] * self.stride,), np.float32)
    return {CLIP: array(latents, np.float32), KNOWN: known}

  def fields(self, shape: tuple[int, int, int], latents: Latents) -> Mapping[str, tuple[int, ...]]:
    """Returns the first and the last frame; or a clip, and 1 for each of its frames to keep."""
    picture = (1, *shape[1:], 3)
    return {FIRST: picture, LAST: picture, CLIP: (*shape, 3), KNOWN: ()}

  def encodes(self) -> tuple[str, ...]:
    """Names the latents of the clip of known frames."""
    return (CLIP,)

  def clips(self, sample: Fields) -> dict[str, np.ndarray]:
    """Returns the clip of known frames; black where nothing is known, none if nothing was asked."""
    clip, known = self._known(sample)
    if known is None:
      return {}
    return {CLIP: nearest_known(clip, known) if known.any() else np.zeros_like(clip)}

  def prepare(self, sample: Fields) -> dict[str, np.ndarray]:
    """Returns which frames are known, filled up to whole latents by the last of them."""
    known = sample.get(KNOWN) if 'latents' in sample else self._known(sample)[1]
    if known is None:
      return {}
    known = _as_mask(known)
    filled = np.pad(known, (0, -len(known) % self.stride), mode='edge')
    return {KNOWN: filled.astype(np.float32)}

  def draw(self, clip: UInt8[np.ndarray, 't h w 3']) -> Bool[np.ndarray, 't']:
    """Returns what is known of a clip of training, a function of its first and last frame."""
    known = np.zeros(len(clip), bool)
    if len(clip) == 1:  # nothing would be left to make
      return known
    generator = generator_of(clip[[0, -1]])
    share = generator.uniform()
    length = int(generator.integers(1, len(clip)))
    if share < self.first:
      known[0] = True
    elif share < self.first + self.ends:
      known[[0, -1]] = True
    elif share < self.first + self.ends + self.prefix:
      known[:length] = True
    return known

  def _known(self, sample: Fields) -> Any:
    """Returns a clip and which of its frames are known: given, or drawn; None if neither."""
    ends = {index: np.asarray(sample[n]) for index, n in ((0, FIRST), (-1, LAST)) if n in sample}
    if CLIP in sample:
      clip = np.array(sample[CLIP])
      known = self._given(sample.get(KNOWN, np.ones(len(clip))), len(clip))
    elif ends:
      frames = len(sample['video']) if 'video' in sample else sample['frames']
      clip = np.zeros((frames, *next(iter(ends.values())).shape[-3:]), np.uint8)
      known = np.zeros(frames, bool)
    elif 'video' in sample:
      clip = np.asarray(sample['video'])
      known = self._given(sample[KNOWN], len(clip)) if KNOWN in sample else self.draw(clip)
    else:
      return None, None
    for index, picture in ends.items():
      clip[index] = picture.reshape(clip.shape[1:])
      known[index] = True
    return clip, known

  def _given(self, known: object, frames: int) -> np.ndarray:
    """Returns a mask that was given, without what `prepare` may have filled up."""
    known = _as_mask(known)
    if known.ndim != 1 or not 0 <= len(known) - frames < self.stride:
      raise ConfigError(
        f'{KNOWN!r} is of shape {known.shape}; expected a number for each of the {frames} frames'
      )
    return known[:frames]

  @nn.compact
  def __call__(self, batch: Batch, drop: Bool[Array, ' b'], latents: Latents) -> Ports:
    if CLIP not in batch:
      return Ports()
    z = batch[CLIP].astype(self.dtype)
    known = batch[KNOWN]
    if known.shape[1] != latents[0] * self.stride:
      raise ConfigError(
        f'{known.shape[1]} frames are {latents[0]} latents, not {self.stride} frames each; set '
        f'config.model.conditionings.{self.name}.stride to the compression of the autoencoder'
      )
    mask = known.astype(self.dtype).reshape(-1, latents[0], 1, 1, self.stride)
    mask = jnp.broadcast_to(mask, (*z.shape[:-1], self.stride))
    tokens = patchify(jnp.concatenate([z, mask], -1), self.patch)
    there = jnp.any(known != 0, axis=1) & ~drop
    tokens = jnp.where(there[:, None, None], tokens, 0)
    axes = ('patch', 'embed')
    project = Linear(self.dim, axes, initializer=ZEROS, dtype=self.dtype, name='project')
    return Ports(tokens=project(tokens))


def generator_of(frames: UInt8[np.ndarray, 't h w 3']) -> np.random.Generator:
  """Returns the generator of what is drawn as a function of frames."""
  digest = hashlib.sha256(np.ascontiguousarray(frames)).digest()
  return np.random.default_rng(int.from_bytes(digest[:8]))


def nearest_known(
  clip: UInt8[np.ndarray, 't h w 3'], known: Bool[np.ndarray, 't']
) -> UInt8[np.ndarray, 't h w 3']:
  """Returns the clip with the nearest known frame in place of each unknown one, the earlier of two.

  What `clip` holds where it is not known does not matter; one frame at least is known.
  """
  places = np.flatnonzero(known)
  away = np.abs(np.arange(len(clip))[:, None] - places)
  return clip[places[away.argmin(1)]]


def _as_mask(known: object) -> np.ndarray:
  return np.asarray(known).astype(np.float32) > 0.5
