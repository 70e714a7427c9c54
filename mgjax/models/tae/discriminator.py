"""Patch discriminators of the autoencoder and their hinge loss (Movie Gen §3.1.1).

That the paper trains against a discriminator is public, which one and how is not: patch
discriminators as those of Isola et al. (2017), one that sees frames and one that sees videos.
"""

from collections.abc import Sequence

import flax.linen as nn
import jax
import jax.numpy as jnp

from mgjax.core.settings import Positive
from mgjax.core.typing import Array, Float, Key, Predict
from mgjax.nn.conv import SpatialConv, TemporalConv
from mgjax.nn.norm import FrameGroupNorm

_SLOPE = 0.2  # of leaky rectifiers below zero
_STEP = 0.01  # of the differences that stand for a gradient, in pixels of [-1, 1]

Logits = Sequence[Float[Array, 'b t _ _ 1']]


class PatchDiscriminator(nn.Module):
  """Judges every patch of a frame, or of a few frames in a row, by itself.

  Attributes:
    widths: channels after each halving of height and width.
    temporal: whether a temporal convolution follows each spatial one, so that patches span
      2 len(widths) + 1 frames: a factorised 3D discriminator.
  """

  widths: tuple[int, ...]
  temporal: bool
  groups: int = 8
  dtype: jnp.dtype = jnp.float32

  @nn.compact
  def __call__(self, x: Float[Array, 'b t h w 3']) -> Float[Array, 'b t _ _ 1']:
    for level, width in enumerate(self.widths):
      x = SpatialConv(width, stride=2, dtype=self.dtype, name=f'spatial_{level}')(x)
      if self.temporal:
        x = TemporalConv(width, dtype=self.dtype, name=f'temporal_{level}')(x)
      if level:
        x = FrameGroupNorm(self.groups, dtype=self.dtype, name=f'norm_{level}')(x)
      x = jax.nn.leaky_relu(x, _SLOPE)
    return SpatialConv(1, name='logits')(x.astype(jnp.float32))


class Discriminator(nn.Module):
  """One discriminator of frames and one of videos; images are one-frame videos to both."""

  widths: tuple[Positive, ...] = (64, 128, 256)
  groups: Positive = 8
  dtype: jnp.dtype = jnp.float32

  @nn.compact
  def __call__(self, video: Float[Array, 'b t h w 3']) -> Logits:
    def patches(temporal: bool, name: str) -> PatchDiscriminator:
      return PatchDiscriminator(self.widths, temporal, self.groups, self.dtype, name=name)

    return patches(False, 'frames')(video), patches(True, 'videos')(video)


def generator_loss(fake: Logits) -> Float[Array, '']:
  """-mean D(y), the mean over discriminators."""
  return -sum(jnp.mean(logits) for logits in fake) / len(fake)


def hinge_loss(real: Logits, fake: Logits) -> Float[Array, '']:
  """(mean max(0, 1 - D(x)) + mean max(0, 1 + D(y))) / 2, the mean over discriminators."""
  pairs = zip(real, fake, strict=True)
  losses = [jnp.mean(jax.nn.relu(1 - x)) + jnp.mean(jax.nn.relu(1 + y)) for x, y in pairs]
  return sum(losses) / (2 * len(losses))


def gradient_penalty(
  predict: Predict, video: Float[Array, 'b t h w c'], real: Logits, key: Key
) -> Float[Array, '']:
  """R1 = mean |dD/dx|^2 at real videos x, by differences: mean ((D(x + s e) - D(x)) / s)^2.

  With e ~ N(0, 1) its expectation is |dD/dx|^2 of each logit as s goes to 0. It needs no gradient
  of a gradient, which sharded products would not give (Lin et al. 2025, arXiv 2501.08316).
  """
  moved = predict(video + _STEP * jax.random.normal(key, video.shape))
  pairs = zip(moved, real, strict=True)
  return sum(jnp.mean(((m - r) / _STEP) ** 2) for m, r in pairs) / len(real)
