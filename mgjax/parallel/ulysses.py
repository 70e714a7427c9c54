"""The all-to-all of context parallelism, tokens for heads (Movie Gen §3.1.6; Ulysses).

Before it, a device holds n / c tokens of all its heads. After it, all tokens of its group and g / u
heads, so attention needs no other device. A group has u devices, the `context` axis c.
"""

import jax.numpy as jnp
from jax import lax

from mgjax.core.typing import Array, Float

_AXIS = 'context'


def groups(devices: int, heads: int) -> list[list[int]] | None:
  """Returns the neighbours along the context axis that exchange heads; None for all of them."""
  if devices == heads:
    return None
  return [list(range(begin, begin + heads)) for begin in range(0, devices, heads)]


def to_heads(
  x: Float[Array, 'b n g _k'], among: list[list[int]] | None
) -> Float[Array, 'b un ug _k']:
  """Exchanges heads for tokens within a group of u devices: (b n g k) -> (b u n, g / u, k)."""
  return lax.all_to_all(x, _AXIS, 2, 1, axis_index_groups=among, tiled=True)


def to_tokens(
  x: Float[Array, 'b un ug _k'], among: list[list[int]] | None
) -> Float[Array, 'b n g _k']:
  """Inverts `to_heads`.

  The array is sent as (b g / u, u, n, k), with heads and batch as one axis before the tokens, as
  kernels return it. As (b, u n, g / u, k) with one head a TPU would copy it into tiles of two rows,
  half of them padding, and back again (`test_heads_travel_in_whole_tiles`).
  """
  b, length, heads, k = x.shape
  devices = lax.axis_size(_AXIS) if among is None else len(among[0])
  x = jnp.swapaxes(x, 1, 2).reshape(b * heads, devices, length // devices, k)
  x = lax.all_to_all(x, _AXIS, 1, 1, axis_index_groups=among, tiled=True)
  x = x.reshape(b, heads, devices, length // devices, k).transpose(0, 3, 2, 1, 4)
  return x.reshape(b, length // devices, devices * heads, k)
