"""SDEdit: a video noised a part of the way and made anew from there (Meng et al. 2022).

It needs no editor: any model of text to video will do, and its prompt says what the edited video
shows, not what to change. The paper compares with it (Movie Gen §5). An editor may begin so too.
"""

import jax.numpy as jnp
import numpy as np

from mgjax.core.typing import Array, Float
from mgjax.flow.path import SIGMA_MIN, interpolate


def rest_of_grid(times: Float[np.ndarray, ' points'], strength: float) -> np.ndarray:
  """Returns the remaining times of a grid, from t_0 = 1 - strength on."""
  start = 1 - strength
  remaining = times[:-1][times[:-1] > start + 1e-6]  # closer times are equal in float32
  return np.concatenate([[start], remaining, times[-1:]])


def noised(
  latents: Float[Array, 'b *axes'],
  noise: Float[Array, 'b *axes'],
  strength: float,
  sigma_min: float = SIGMA_MIN,
) -> Float[Array, 'b *axes']:
  """Returns the point at t_0 of the path from noise to a video's latents, see `interpolate`."""
  start = jnp.full(len(latents), 1 - strength, jnp.float32)
  return interpolate(latents, noise, start, sigma_min)
