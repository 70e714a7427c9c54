"""Mesh axes on torus axes: what JAX places, and sentences for what it cannot."""

import dataclasses
import itertools
import math

import numpy as np
import pytest
from jax.experimental import mesh_utils

from mgjax.core.errors import ConfigError
from mgjax.parallel.torus import assign_axes, valid_meshes


@dataclasses.dataclass(frozen=True)
class Chip:
  """As much of a TPU as the placement of a mesh looks at."""

  coords: tuple[int, ...]
  core_on_chip: int
  device_kind: str
  platform: str = 'tpu'


def chips(torus):
  kind = 'TPU7x' if len(torus) == 4 else 'TPU v5p' if len(torus) == 3 else 'TPU v6 lite'
  for place in itertools.product(*map(range, torus)):
    core = place[3] if len(torus) == 4 else 0
    yield Chip((*place[:3], 0)[:3], core, kind)


@pytest.mark.parametrize(
  'torus', [(4, 4, 4), (4, 4, 8), (16, 16), (8, 16), (2, 4, 8), (4, 4, 4, 2)]
)
def test_the_assignment_is_the_one_that_jax_makes(torus):
  for sizes in valid_meshes(torus):
    placed = mesh_utils.create_device_mesh(tuple(sizes.values()), list(chips(torus)))
    ours = assign_axes(sizes, torus)
    for number, axis in enumerate(sizes):
      # Along one mesh axis, exactly the coordinates of its own torus axes change.
      along = np.moveaxis(placed, number, 0).reshape(sizes[axis], -1)[:, 0]
      places = np.array([(*chip.coords[: min(len(torus), 3)], chip.core_on_chip) for chip in along])
      changing = {index for index in range(len(torus)) if len(set(places[:, index])) > 1}
      assert changing == set(ours.get(axis, ()))


def test_sizes_are_products_of_whole_torus_axes():
  assert assign_axes({'fsdp': 64, 'context': 8}, (8, 8, 8)) == {'fsdp': (1, 2), 'context': (0,)}
  found = assign_axes({'slice': 4, 'fsdp': 16, 'context': 16}, (16, 16))
  assert found == {'fsdp': (1,), 'context': (0,)}
  assert assign_axes({'data': 1}, (1, 1)) == {}
  for sizes in valid_meshes((8, 8, 8)):
    assert math.prod(sizes.values()) == 512
    assert set(sizes.values()) <= {1, 8, 64, 512}


@pytest.mark.parametrize(
  ('sizes', 'torus', 'sentence'),
  [
    (
      {'fsdp': 16, 'context': 32},
      (8, 8, 8),
      r'^context = 32 is no product of axes of the 8x8x8 torus; 8, 64 and 512 are$',
    ),
    (
      {'data': 2, 'fsdp': 4, 'context': 8},
      (2, 4, 8),
      r'^fsdp = 4 is no product of the axes that context = 8 leaves of the 2x4x8 torus; 8 is$',
    ),
    (
      {'fsdp': 8, 'context': 8},
      (8, 8, 8),
      r'^the mesh fsdp = 8, context = 8 has 64 devices, the 8x8x8 torus 512; .* 8, 64 and 512$',
    ),
  ],
)
def test_other_sizes_are_refused_with_those_that_would_do(sizes, torus, sentence):
  with pytest.raises(ConfigError, match=sentence):
    assign_axes(sizes, torus)
