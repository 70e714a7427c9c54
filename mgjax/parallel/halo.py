"""The frames beyond a device's own, where time lies in pieces: a halo from its neighbours."""

import jax.numpy as jnp
from jax import lax

from mgjax.core.errors import ConfigError
from mgjax.core.typing import Array, Float


def extend(
  x: Float[Array, 'b t h w c'], edge: int, axis_name: str | None = None
) -> Float[Array, 'b u h w c']:
  """Returns u = t + 2 edge frames: `edge` more at both ends (Movie Gen §3.1.1).

  Beyond the first and the last frame of all there are copies of it, the report's symmetric
  replicate padding; beyond those of one device are its neighbours'. The pieces of a video, extended
  inside `jax.shard_map`, are therefore the pieces of the extended video, `edge` frames overlapping
  on each side.

  Args:
    x: all frames, or with a name this device's.
    edge: frames to add at each end, 1 or more.
    axis_name: the mesh axis that time is split over, inside `jax.shard_map`.

  Raises:
    ConfigError: a neighbour has fewer than `edge` frames.
  """
  if axis_name is None:
    # Not `jnp.pad`, whose transpose makes the convolution before it five times slower on a CPU.
    first, last = (jnp.repeat(end, edge, axis=1) for end in (x[:, :1], x[:, -1:]))
    return jnp.concatenate([first, x, last], axis=1)
  if x.shape[1] < edge:
    raise ConfigError(
      f'{x.shape[1]} frame(s) a device cannot give their neighbours {edge}; split time over fewer '
      'devices, or not at all'
    )
  devices, here = lax.axis_size(axis_name), lax.axis_index(axis_name)
  onwards = [(device, device + 1) for device in range(devices - 1)]
  back = [(after, before) for before, after in onwards]
  before = lax.ppermute(x[:, -edge:], axis_name, onwards)
  after = lax.ppermute(x[:, :edge], axis_name, back)
  before = jnp.where(here == 0, jnp.repeat(x[:, :1], edge, axis=1), before)
  after = jnp.where(here == devices - 1, jnp.repeat(x[:, -1:], edge, axis=1), after)
  return jnp.concatenate([before, x, after], axis=1)
