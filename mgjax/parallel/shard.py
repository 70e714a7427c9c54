"""Places arrays on the mesh by their logical axes."""

from collections.abc import Callable

import flax.linen as nn
import jax
import numpy as np
from jax.sharding import AbstractMesh, Mesh, NamedSharding, PartitionSpec

from mgjax.core.errors import ConfigError
from mgjax.core.precision import QUANTISED
from mgjax.core.typing import Array, Batch, Key, Tree
from mgjax.parallel.distributed import rows_of_process
from mgjax.parallel.rules import BATCH, ambient, fit, partition, size, spec

Place = Callable[[str, tuple[int, ...]], NamedSharding]


def parameter_shardings(boxed: Tree, mesh: Mesh) -> Tree:
  """Returns the sharding of every parameter of an initialised (or abstract) tree with axis names.

  Raises ConfigError if a parameter has no logical axes.
  """

  def place(box) -> NamedSharding:
    if not isinstance(box, nn.LogicallyPartitioned):
      raise ConfigError(f'a parameter of shape {box.shape} has no logical axes')
    return NamedSharding(mesh, partition(box.names, box.value.shape, mesh))

  return jax.tree.map(place, boxed, is_leaf=_is_box)


def make_place(boxed: Tree, mesh: Mesh) -> Place:
  """Makes `place(name, shape) -> sharding` of parameters, by the axes that `boxed` names.

  Shapes may differ from those in `boxed`; parameters that it does not have are replicated. The
  numbers of a quantised kernel (`nn/quantize.py`) are split as the kernel.
  """
  axes = {name: box.names for name, box in named_boxes(boxed).items()}

  def place(name: str, shape: tuple[int, ...]) -> NamedSharding:
    name = name.removesuffix(f'/{QUANTISED}')
    if name not in axes:
      return replicated(mesh)
    return NamedSharding(mesh, partition(axes[name], shape, mesh))

  return place


def named_boxes(boxed: Tree) -> dict[str, Tree]:
  """Maps 'backbone/norm/scale' to its box with axis names, or to its leaf where it has none."""
  leaves, _ = jax.tree_util.tree_flatten_with_path(boxed, is_leaf=_is_box)
  return {jax.tree_util.keystr(path, simple=True, separator='/'): box for path, box in leaves}


def _is_box(leaf) -> bool:
  return isinstance(leaf, nn.LogicallyPartitioned)


def replicated(mesh: Mesh | AbstractMesh) -> NamedSharding:
  """Returns the sharding of an array that is replicated on every device."""
  return NamedSharding(mesh, PartitionSpec())


def on_every_device() -> Place | None:
  """Returns a place that replicates on the ambient mesh, or None without a mesh."""
  mesh = jax.sharding.get_mesh()
  return None if mesh.empty else lambda name, shape: replicated(mesh)


def batch_sharding(mesh: Mesh) -> NamedSharding:
  """Returns the sharding of an array whose first axis is the rows of a batch."""
  return NamedSharding(mesh, PartitionSpec(BATCH))


def make_initialise(init: Callable[[Key], Tree], mesh: Mesh) -> tuple[Callable[[Key], Tree], Tree]:
  """Makes `initialise(key) -> params`, with each parameter sharded; returns the shardings as well.

  `init` returns parameters with logical axes, as that of a Linen module.
  """
  shardings = parameter_shardings(jax.eval_shape(init, jax.random.key(0)), mesh)
  return jax.jit(lambda key: nn.unbox(init(key)), out_shardings=shardings), shardings


def over_rows(local: Callable[[Array], Tree], x: Array) -> Tree:
  """Returns local(x), where `local` does not mix rows: on a mesh each device gets its own rows.

  Use it for operations that the compiler does not split, such as Fourier transforms; it would
  gather all rows on every device.
  """
  mesh = ambient()
  if mesh is None:
    return local(x)
  rows = spec([fit(BATCH, x.shape[0], mesh)])
  return jax.shard_map(local, in_specs=rows, out_specs=rows)(x)


def put_batch(batch: Batch, mesh: Mesh) -> Batch:
  """Places this host's rows of a batch on its devices, split over the axes that split rows.

  Hosts that share rows (`rows_of_process`) pass the same ones. Raises ConfigError if the rows do
  not divide over the devices.
  """
  sharding = batch_sharding(mesh)
  _, hosts = rows_of_process(mesh, jax.process_index())
  parts = size(mesh, BATCH)
  for name, array in batch.items():
    if array.shape[0] * hosts % parts:
      raise ConfigError(
        f'{name!r} has {array.shape[0] * hosts} rows, which {parts} groups of devices cannot '
        f'share; take a batch size that is a multiple of {parts}, or fewer devices'
      )
  return {
    name: jax.make_array_from_process_local_data(
      sharding, np.asarray(array), (array.shape[0] * hosts, *array.shape[1:])
    )
    for name, array in batch.items()
  }
