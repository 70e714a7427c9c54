"""Makes the device mesh; the only place that does."""

import math
import re
from collections.abc import Sequence
from typing import Annotated

import jax
import numpy as np
from jax.experimental import mesh_utils
from jax.sharding import AxisType, Mesh

from mgjax.core.configuration.keys import Fields
from mgjax.core.errors import ConfigError, check_one_of
from mgjax.core.settings import Range, checked
from mgjax.parallel.rules import AXES, PRESETS
from mgjax.parallel.torus import assign_axes

Size = Annotated[int, Range(least=-1)]


def make_mesh(
  sizes: Fields | str | None = None,
  rules: str = 'fsdp_tp_cp',
  *,
  devices: Sequence[object] | None = None,
  torus: tuple[int, ...] = (),
) -> Mesh:
  """Makes the mesh over devices, by default over all there are.

  Args:
    sizes: axis name -> size, or the same as text, 'fsdp=2,context=4'; an axis that is missing has
      size 1, and at most one may be -1, which takes what is left. By default all devices are on
      `data`.
    rules: a preset of `parallel/rules.py`, which names the axes that may be larger than 1.
    devices: of a topology that is only compiled for.
    torus: the shape of the interconnect of those devices; every mesh axis is then a product of
      whole torus axes, so that its neighbours in the mesh are neighbours on wires.

  Raises:
    ConfigError: an unknown axis or preset, sizes that do not make up the number of devices, an axis
      that the preset does not use, or one that is no product of torus axes.
  """
  devices = jax.devices() if devices is None else list(devices)
  sizes = read_sizes(sizes) if isinstance(sizes, str) else sizes
  shape = _shape(sizes, rules, len(devices))
  # Auto, not the default Explicit: Linen's constraints and partial shardings need it.
  types = (AxisType.Auto,) * len(AXES)
  if torus:
    assign_axes(dict(zip(AXES, shape, strict=True)), torus)
    return Mesh(mesh_utils.create_device_mesh(shape, devices), AXES, axis_types=types)
  slices = len({getattr(device, 'slice_index', 0) for device in devices})
  if slices > 1 and shape[0] == slices:
    across = (slices, *[1] * (len(AXES) - 1))
    inside = (1, *shape[1:])
    placed = mesh_utils.create_hybrid_device_mesh(inside, across, devices)
  else:
    placed = mesh_utils.create_device_mesh(shape, devices)
  return Mesh(np.asarray(placed), AXES, axis_types=types)


def rows_mesh() -> Mesh | None:
  """Returns a mesh of the ambient mesh's devices with rows on all of them; None for one device.

  It suits work without communication between rows, as on tiles of a video.
  """
  mesh = jax.sharding.get_mesh()
  if mesh.empty or mesh.size == 1:
    return None
  shape = tuple(mesh.size if axis == 'data' else 1 for axis in AXES)
  return Mesh(mesh.devices.reshape(shape), AXES, axis_types=(AxisType.Auto,) * len(AXES))


def read_sizes(text: str) -> dict[str, int]:
  """Parses sizes of mesh axes, as 'fsdp=32,context=16'. Raises ConfigError for other text."""
  pairs = re.findall(r'(\w+)=(-1|[1-9]\d*)(?:,|$)', text.replace(' ', ''))
  if text.replace(' ', '') != ','.join(map('='.join, pairs)) or len(dict(pairs)) < len(pairs):
    raise ConfigError(f'the mesh {text!r}: expected sizes of axes, as in fsdp=32,context=16')
  _check_axes(dict(pairs))
  return {axis: int(size) for axis, size in pairs}


def _check_axes(sizes: Fields) -> None:
  if unknown := sorted(set(sizes) - set(AXES)):
    raise ConfigError(f'unknown mesh axes {unknown}; expected some of {", ".join(AXES)}')


def _shape(sizes: Fields | None, rules: str, devices: int) -> tuple[int, ...]:
  requested = {'data': -1} if sizes is None else dict(sizes)
  _check_axes(requested)
  check_one_of(f'unknown sharding rules {rules!r}', rules, PRESETS)
  shape = [checked(Size, requested.get(axis, 1), f'mesh.{axis}') for axis in AXES]
  fixed = math.prod(size for size in shape if size != -1)
  if shape.count(-1) > 1 or any(size < 1 and size != -1 for size in shape) or devices % fixed:
    raise ConfigError(
      f'the mesh {requested} does not fit {devices} device(s); sizes are positive, their product '
      f'divides {devices}, and one of them may be -1 to take the rest'
    )
  shape = [devices // fixed if size == -1 else size for size in shape]
  if math.prod(shape) != devices:
    raise ConfigError(
      f'the mesh {requested} uses {math.prod(shape)} of {devices} device(s); multiply one of its '
      f'sizes by {devices // math.prod(shape)}, or give one as -1 to take the rest'
    )
  for axis, size in zip(AXES, shape, strict=True):
    if size > 1 and axis not in PRESETS[rules]:
      fitting = [name for name, axes in PRESETS.items() if axis in axes]
      raise ConfigError(
        f'mesh.{axis} = {size}, but the rules {rules!r} do not use that axis; take '
        f'--config.rules={fitting[0]}, or mesh.{axis} = 1'
      )
  return tuple(shape)
