"""The device mesh; the only place where one is made."""

import math
from collections.abc import Mapping

import jax
from jax.sharding import AxisType, Mesh

from mgjax.core.errors import ConfigError

AXES = ('data', 'fsdp', 'context', 'tensor')


def make_mesh(sizes: Mapping[str, int] | None = None) -> Mesh:
  """Makes the mesh over all devices.

  Args:
    sizes: axis name -> size; an axis that is missing has size 1, and at most one may be -1, which
      takes what is left. By default all devices are on `data`.

  Raises:
    ConfigError: an unknown axis, or sizes that do not make up the number of devices.
  """
  devices = jax.device_count()
  given = {'data': -1} if sizes is None else dict(sizes)
  if unknown := sorted(set(given) - set(AXES)):
    raise ConfigError(f'unknown mesh axes {unknown}; expected some of {", ".join(AXES)}')
  shape = [given.get(axis, 1) for axis in AXES]
  fixed = math.prod(size for size in shape if size != -1)
  if shape.count(-1) > 1 or any(size < 1 and size != -1 for size in shape) or devices % fixed:
    raise ConfigError(
      f'the mesh {given} does not fit {devices} device(s); sizes are positive, their product '
      f'divides {devices}, and one of them may be -1 to take the rest'
    )
  shape = [devices // fixed if size == -1 else size for size in shape]
  if math.prod(shape) != devices:
    raise ConfigError(f'the mesh {given} uses {math.prod(shape)} of {devices} device(s)')
  # Auto, not the default Explicit: Linen's constraints and partial shardings need it.
  return jax.make_mesh(tuple(shape), AXES, axis_types=(AxisType.Auto,) * len(AXES))
