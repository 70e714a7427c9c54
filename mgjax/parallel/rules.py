"""THE table: which mesh axes each logical axis (`core/axes.py`) meets."""

from collections.abc import Mapping

from jax.sharding import Mesh, PartitionSpec

from mgjax.core.axes import AXES
from mgjax.core.errors import ConfigError

# The batch axis of every input meets all axes that split the data.
BATCH = ('data', 'fsdp')

# Axes that a preset does not name are replicated.
RULES: dict[str, dict[str, str]] = {
  'single': {},
  'fsdp': {'embed': 'fsdp', 'channels': 'fsdp'},
}


def partition(
  names: tuple[str | None, ...], shape: tuple[int, ...], mesh: Mesh, preset: str
) -> PartitionSpec:
  """Returns where the axes of one parameter lie.

  A mesh axis is used once, by the first logical axis that asks for it and whose size it divides;
  an axis that it does not divide stays whole.

  Raises:
    ConfigError: the preset is unknown, or an axis has no name or an unknown one.
  """
  if preset not in RULES:
    raise ConfigError(f'unknown sharding rules {preset!r}; expected one of {", ".join(RULES)}')
  if len(names) != len(shape) or any(name not in AXES for name in names):
    raise ConfigError(f'a parameter of shape {shape} names its axes {names}; see core/axes.py')
  rules: Mapping[str, str] = RULES[preset]
  entries: list[str | None] = []
  for name, size in zip(names, shape, strict=True):
    axis = rules.get(name)
    free = axis is not None and axis not in entries and size % mesh.shape[axis] == 0
    entries.append(axis if free else None)
  return PartitionSpec(*entries)
