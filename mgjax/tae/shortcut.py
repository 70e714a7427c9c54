"""A linear way around the autoencoder's networks, which starts as a discrete cosine transform.

Convolutions that start at random take thousands of steps to what a linear map of blocks of pixels
does at once. With the shortcut the networks add to such a map from the first step on:
mean = networks(x) + A blocks(x), and x = networks(z) + B z in blocks, with A = B^T at the start.
The report has none; deep compression autoencoders (Chen et al. 2024, arXiv 2410.10733) have one at
each level, which is fixed.
"""

import einops
import jax.numpy as jnp
import numpy as np

from mgjax.core.typing import Array, Float

# Axes of colour, orthonormal: brightness, and two that carry less power.
_COLOURS = np.array([[1, 1, 1], [1, 0, -1], [0.5, -1, 0.5]]) / np.sqrt([[3], [2], [1.5]])
_FAINT = 0.25  # power of a colour beside that of brightness
_SMOOTH = 0.1  # of power that falls by frequency, 1 / (smooth + f^2)


def cosines(shape: tuple[int, int, int], channels: int) -> Float[np.ndarray, 'c d']:
  """Returns the rows of a cosine transform of blocks (t, h, w, 3) that carry most, orthonormal.

  What an image carries is taken to fall with the square of its frequency, in half periods a block.
  Beyond t h w 3 rows there are none: the rest is zeros.
  """
  time, height, width = (_transform(length) for length in shape)
  rows = np.einsum('at,bh,ck,qr->abcqthkr', time, height, width, _COLOURS)
  rows = rows.reshape(-1, 3 * np.prod(shape))
  frequency = sum(np.square(each) for each in np.indices(shape))[..., None]
  power = np.array([1, _FAINT, _FAINT]) / (_SMOOTH + frequency)
  order = np.argsort(-power.ravel(), kind='stable')[:channels]
  missing = channels - len(order)
  return np.concatenate([rows[order], np.zeros((missing, rows.shape[1]))]).astype(np.float32)


def _transform(length: int) -> Float[np.ndarray, 'a t']:
  """DCT-II, orthonormal."""
  places, frequency = np.arange(length), np.arange(length)[:, None]
  rows = np.cos(np.pi * (places + 0.5) * frequency / length) * np.sqrt(2 / length)
  rows[0] /= np.sqrt(2)
  return rows


def blocks(
  video: Float[Array, 'b t h w c'], shape: tuple[int, int, int]
) -> Float[Array, 'b u i j d']:
  """Cuts a video into blocks; where time does not divide, the last frame is repeated."""
  missing = -video.shape[1] % shape[0]
  video = jnp.pad(video, [(0, 0), (0, missing), (0, 0), (0, 0), (0, 0)], 'edge')
  t, h, w = shape
  return einops.rearrange(video, 'b (u t) (i h) (j w) c -> b u i j (t h w c)', t=t, h=h, w=w)


def joined(
  rows: Float[Array, 'b u i j d'], shape: tuple[int, int, int]
) -> Float[Array, 'b t h w 3']:
  """Puts blocks together again."""
  t, h, w = shape
  return einops.rearrange(rows, 'b u i j (t h w c) -> b (u t) (i h) (j w) c', t=t, h=h, w=w, c=3)
