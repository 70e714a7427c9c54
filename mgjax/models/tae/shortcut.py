"""A linear way around the autoencoder's networks, which starts as principal components.

Convolutions that start at random take thousands of steps to what a linear map of blocks of pixels
does at once. With the shortcut the networks add to such a map from the first step on:
mean = networks(x) + A blocks(x), and x = networks(z) + B z in blocks. At the start A = B^T, and its
rows are the principal components of blocks of the training data.
The paper has none; deep compression autoencoders (Chen et al. 2024, arXiv 2410.10733) have one at
each level, which is fixed.
"""

import einops
import jax.numpy as jnp
import numpy as np

from mgjax.core.typing import Array, Float

_ROUNDS = 8  # of the subspace iteration
_SPARE = 16  # directions more than are asked for, which make it converge sooner


def components(rows: Float[np.ndarray, 'n d'], count: int) -> Float[np.ndarray, 'c d']:
  """Returns the directions of largest power of rows, orthonormal, in descending order.

  Halko et al. 2011, section 4.4: power iteration of a random subspace. The mean is not subtracted,
  so that no bias is needed. Rows beyond the dimension d are zeros.
  """
  size = rows.shape[1]
  num_directions = min(count, size)
  guess = (
    np.random.default_rng(0)
    .normal(size=(size, min(num_directions + _SPARE, size)))
    .astype(np.float32)
  )
  for _ in range(_ROUNDS):
    guess, _ = np.linalg.qr(rows.T @ (rows @ guess))
  projected = (rows @ guess).astype(np.float64)
  _, axes = np.linalg.eigh(projected.T @ projected)  # the strongest last; all, of few rows too
  directions = np.zeros((count, size), np.float32)
  directions[:num_directions] = (guess @ axes[:, ::-1]).T[:num_directions]
  return directions


def blocks(
  video: Float[Array, 'b t h w c'], shape: tuple[int, int, int]
) -> Float[Array, 'b u i j d']:
  """Cuts a video into blocks; where time does not divide, the last frame is repeated."""
  missing = -video.shape[1] % shape[0]
  video = jnp.pad(video, [(0, 0), (0, missing), (0, 0), (0, 0), (0, 0)], 'edge')
  t, h, w = shape
  return einops.rearrange(video, 'b (u t) (i h) (j w) c -> b u i j (t h w c)', t=t, h=h, w=w)


def unblock(
  rows: Float[Array, 'b u i j d'], shape: tuple[int, int, int]
) -> Float[Array, 'b t h w 3']:
  """Puts blocks together again."""
  t, h, w = shape
  return einops.rearrange(rows, 'b u i j (t h w c) -> b (u t) (i h) (j w) c', t=t, h=h, w=w, c=3)
