"""Arrays into their shards."""

from collections.abc import Callable

import flax.linen as nn
import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from mgjax.core.errors import ConfigError
from mgjax.core.typing import Batch, Key, Tree
from mgjax.parallel.rules import BATCH, partition


def parameter_shardings(boxed: Tree, mesh: Mesh, preset: str) -> Tree:
  """Returns the sharding of every parameter of an initialised (or abstract) tree with axis names.

  Raises:
    ConfigError: a parameter has no logical axes.
  """

  def place(box) -> NamedSharding:
    if not isinstance(box, nn.LogicallyPartitioned):
      raise ConfigError(f'a parameter of shape {box.shape} has no logical axes')
    return NamedSharding(mesh, partition(box.names, box.value.shape, mesh, preset))

  return jax.tree.map(place, boxed, is_leaf=lambda x: isinstance(x, nn.LogicallyPartitioned))


def replicated(mesh: Mesh) -> NamedSharding:
  """Returns the sharding of what every device holds whole."""
  return NamedSharding(mesh, PartitionSpec())


def make_initialise(
  init: Callable[[Key], Tree], mesh: Mesh, preset: str
) -> tuple[Callable[[Key], Tree], Tree]:
  """Makes `initialise(key) -> params`, which allocates every parameter in its shards.

  Args:
    init: key -> parameters with logical axes, as a Linen module's `init` gives them.
    mesh: from `make_mesh`.
    preset: a name in `parallel.rules.RULES`.

  Returns:
    The function, and the shardings of what it returns.
  """
  shardings = parameter_shardings(jax.eval_shape(init, jax.random.key(0)), mesh, preset)
  return jax.jit(lambda key: nn.unbox(init(key)), out_shardings=shardings), shardings


def put_batch(batch: Batch, mesh: Mesh) -> Batch:
  """Places this host's rows of a batch on its devices, split over the axes that split the data.

  Raises:
    ConfigError: the rows do not divide over the devices.
  """
  sharding = NamedSharding(mesh, PartitionSpec(BATCH))
  parts = int(np.prod([mesh.shape[axis] for axis in BATCH])) // jax.process_count()
  for name, array in batch.items():
    if array.shape[0] % max(parts, 1):
      raise ConfigError(
        f'{name!r} has {array.shape[0]} rows on this host, which {parts} device groups cannot '
        f'share; take a batch size that is a multiple of {parts * jax.process_count()}'
      )
  return {
    name: jax.make_array_from_process_local_data(sharding, np.asarray(array))
    for name, array in batch.items()
  }
