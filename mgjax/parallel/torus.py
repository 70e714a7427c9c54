"""Assigns mesh axes to axes of a torus, by arithmetic on sizes without devices."""

import functools
import itertools
import math
from collections.abc import Mapping, Sequence

from mgjax.core.errors import ConfigError
from mgjax.parallel.rules import AXES

# `slice` crosses the network between tori.
INSIDE = AXES[1:]


def assign_axes(sizes: Mapping[str, int], torus: tuple[int, ...]) -> dict[str, tuple[int, ...]]:
  """Returns the torus axes, by number, that each mesh axis larger than 1 is made of.

  A mesh axis takes complete torus axes, so that its neighbours in the mesh are connected by links.
  The assignment equals that of `jax.experimental.mesh_utils.create_device_mesh`. The last mesh
  axis, which communicates most, chooses first and takes as many torus axes as it can
  (`test_the_assignment_is_the_one_that_jax_makes`). `slice` is not part of a torus and is left out.
  Raises ConfigError if the sizes do not multiply to the torus, as (8, 8, 8), or one is not a
  product of its remaining axes.
  """
  mesh_sizes = {axis: sizes[axis] for axis in reversed(INSIDE) if sizes.get(axis, 1) > 1}
  if math.prod(mesh_sizes.values()) != math.prod(torus):
    sizes_text = _listed(dict(reversed(mesh_sizes.items())))
    raise ConfigError(
      f'the mesh {sizes_text} has {math.prod(mesh_sizes.values())} devices, the {_shown(torus)} '
      f'torus {math.prod(torus)}; sizes of its axes are products of {_words(_products(torus))}'
    )
  free = {index: length for index, length in enumerate(torus) if length > 1}
  assigned: dict[str, tuple[int, ...]] = {}
  for axis, size in mesh_sizes.items():
    torus_axes = _choose(free, size)
    if torus_axes is None:
      raise ConfigError(_no_product(axis, size, torus, free, {a: mesh_sizes[a] for a in assigned}))
    assigned[axis] = torus_axes
    free = {index: length for index, length in free.items() if index not in torus_axes}
  return {axis: assigned[axis] for axis in INSIDE if axis in assigned}


@functools.lru_cache
def valid_meshes(torus: tuple[int, ...]) -> tuple[dict[str, int], ...]:
  """Returns the sizes of every mesh that `assign_axes` accepts, with all axes inside a torus."""
  meshes = {}
  for owners in itertools.product(INSIDE, repeat=len(torus)):
    sizes: dict[str, int] = dict.fromkeys(INSIDE, 1)
    for owner, length in zip(owners, torus, strict=True):
      sizes[owner] *= length
    try:
      assign_axes(sizes, torus)
    except ConfigError:  # JAX would not find this assignment
      continue
    meshes[tuple(sizes.values())] = sizes
  return tuple(meshes[key] for key in sorted(meshes))


def _choose(free: Mapping[int, int], size: int) -> tuple[int, ...] | None:
  for count in range(len(free), 0, -1):
    for indices in itertools.combinations(free, count):
      if math.prod(free[index] for index in indices) == size:
        return indices
  return None


def _no_product(
  axis: str, size: int, torus: tuple[int, ...], free: Mapping[int, int], assigned: Mapping[str, int]
) -> str:
  whole = _products(torus)
  if size not in whole:
    return f'{axis} = {size} is no product of axes of the {_shown(torus)} torus; {_are(whole)}'
  remaining = _products(tuple(free.values()))
  return (
    f'{axis} = {size} is no product of the axes that {_listed(assigned)} leaves of the '
    f'{_shown(torus)} torus; {_are(remaining) if remaining else "none are left"}'
  )


def _products(lengths: Sequence[int]) -> list[int]:
  products = {1}
  for length in lengths:
    products |= {product * length for product in products}
  return sorted(products - {1})


def _are(values: Sequence[int]) -> str:
  return f'{_words(values)} {"is" if len(values) == 1 else "are"}'


def _words(values: Sequence[object]) -> str:
  *most, last = [str(value) for value in values] or ['1']
  return f'{", ".join(most)} and {last}' if most else last


def _listed(sizes: Mapping[str, int]) -> str:
  return ', '.join(f'{axis} = {size}' for axis, size in sizes.items()) or 'of size 1'


def _shown(torus: tuple[int, ...]) -> str:
  return 'x'.join(map(str, torus))
