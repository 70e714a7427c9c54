"""Exchanges halo frames with neighbouring devices where the time axis is sharded."""

import jax.numpy as jnp
from jax import lax

from mgjax.core.errors import ConfigError
from mgjax.core.typing import Array, Float


def halo(
  x: Float[Array, 'b t h w c'], edge: int, axis_name: str | None = None
) -> tuple[Float[Array, 'b u h w c'], Float[Array, 'b u h w c']]:
  """Returns the u = `edge` frames before the first and after the last one (Movie Gen §3.1.1).

  Beyond the first and the last frame of the video there are copies of it, the paper's symmetric
  replicate padding. Beyond those of one device are its neighbours' frames. They are returned
  separately from `x`, so that nothing large is copied and products of `x` need not wait for them.

  With `axis_name`, the mesh axis over which `jax.shard_map` splits time, x holds this device's
  frames. Raises ConfigError if a neighbour has fewer than `edge` frames.
  """
  first, last = (jnp.repeat(end, edge, axis=1) for end in (x[:, :1], x[:, -1:]))
  if axis_name is None:
    return first, last
  if x.shape[1] < edge:
    raise ConfigError(
      f'{x.shape[1]} frame(s) a device cannot give their neighbours {edge}; split time over fewer '
      'devices, or not at all'
    )
  devices = lax.axis_size(axis_name)
  here = lax.axis_index(axis_name)
  onwards = [(device, device + 1) for device in range(devices - 1)]
  back = [(after, before) for before, after in onwards]
  before = lax.ppermute(x[:, -edge:], axis_name, onwards)
  after = lax.ppermute(x[:, :edge], axis_name, back)
  return jnp.where(here == 0, first, before), jnp.where(here == devices - 1, last, after)
