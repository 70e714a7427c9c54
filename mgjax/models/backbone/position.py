"""Factorised learned positions (Movie Gen §3.1.3)."""

import flax.linen as nn
import jax
import jax.numpy as jnp

from mgjax.core.errors import ConfigError
from mgjax.core.typing import Array, Float, Int, Tree
from mgjax.nn.linear import parameter

_TABLES = ('time', 'height', 'width')
INIT = jax.nn.initializers.normal(0.02)  # not in public sources


class Positions(nn.Module):
  """phi(t, h, w) = phi_t[t] + phi_h[h] + phi_w[w], one vector a patch.

  The same sum is added to the input of *every* layer, which the paper found to reduce distortion.
  With an offset frame i of a row is at phi_t[offset + i]: a picture can stand anywhere in time
  (Movie Gen §5). An offset is clamped to those with which all frames are within the table.
  `lengths` are the entries of the three tables, the largest grid the model can see.
  Raises ConfigError if the grid is larger than the tables.
  """

  lengths: tuple[int, int, int]
  dim: int

  @nn.compact
  def __call__(
    self, grid: tuple[int, int, int], offset: Int[Array, ' b'] | None = None
  ) -> Float[Array, '_b n d']:
    """Returns the vectors of all patches: one row for all without an `offset`, else b rows."""
    if any(size > length for size, length in zip(grid, self.lengths, strict=True)):
      raise ConfigError(
        f'a grid of {grid} patches (t, h, w) is larger than the position tables {self.lengths}; '
        'raise model.positions, or grow a checkpoint with grow_positions'
      )
    tables = [
      parameter(self, name, INIT, ('positions', 'embed'), (length, self.dim))
      for name, length in zip(_TABLES, self.lengths, strict=True)
    ]
    t, h, w = (table[:size] for table, size in zip(tables, grid, strict=True))
    shape = (*grid, self.dim)

    def total(t: Float[Array, 't d']) -> Float[Array, 'n d']:
      summed = (
        jnp.broadcast_to(t[:, None, None], shape)
        + jnp.broadcast_to(h[None, :, None], shape)
        + jnp.broadcast_to(w[None, None, :], shape)
      )
      return summed.reshape(-1, self.dim)

    if offset is None:
      return total(t)[None]
    first = jnp.clip(offset, 0, self.lengths[0] - grid[0])
    return jax.vmap(total)(tables[0][first[:, None] + jnp.arange(grid[0])[None]])


def grow_positions(tables: Tree, lengths: tuple[int, int, int]) -> Tree:
  """Stretches trained position tables to new lengths by linear interpolation.

  Between stages the paper doubles the spatial tables (images to joint training) and triples them
  (256 px to 768 px), Movie Gen §3.2.2. Entry j of the new table reads the old one at
  (j + 1/2) l / l' - 1/2, held at the ends, so the ends of a picture stay its ends.
  Raises ConfigError if a new length is smaller than the old one.
  """
  grown = {}
  for name, length in zip(_TABLES, lengths, strict=True):
    table = tables[name]
    if length < table.shape[0]:
      raise ConfigError(
        f'table {name!r} has {table.shape[0]} entries and cannot shrink to {length}; take '
        'model.positions of at least the lengths of the run that is started from'
      )
    position = (jnp.arange(length) + 0.5) * table.shape[0] / length - 0.5
    position = jnp.clip(position, 0, table.shape[0] - 1)
    below = jnp.floor(position).astype(jnp.int32)
    above = jnp.minimum(below + 1, table.shape[0] - 1)
    weight = (position - below)[:, None]
    grown[name] = table[below] * (1 - weight) + table[above] * weight
  return grown
