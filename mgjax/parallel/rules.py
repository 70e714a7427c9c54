"""The sharding table: which mesh axes split each logical axis of parameters and activations.

The mesh is ambient: inside `with jax.set_mesh(mesh)` every model is sharded by this table. Without
one it runs on one device. Mesh axes of size 1 have no effect.
"""

import functools
import math
from collections.abc import Callable, Sequence

import jax
from jax.sharding import AbstractMesh, Mesh, PartitionSpec

from mgjax.core.axes import LOGICAL_AXES
from mgjax.core.errors import ConfigError
from mgjax.core.typing import Array

# From the slowest network to the fastest: neighbours along the last axes talk most.
AXES = ('slice', 'data', 'fsdp', 'context', 'tensor')

# A preset names the axes that may be larger than 1.
PRESETS = {
  'single': ('slice', 'data'),
  'fsdp': ('slice', 'data', 'fsdp'),
  'fsdp_tp': ('slice', 'data', 'fsdp', 'tensor'),
  'fsdp_cp': ('slice', 'data', 'fsdp', 'context'),
  'fsdp_tp_cp': AXES,
}

# Activations: rows of a batch, and the tokens of a row. Between the products of a layer tokens are
# split over `tensor` as well (sequence parallelism); inside, features are (tensor parallelism).
BATCH = ('slice', 'data', 'fsdp')
TOKENS = ('context', 'tensor')
TIME = ('context',)  # frames of a video, which the autoencoder splits as the backbone does tokens

# Parameters: float32 masters are split over all devices that share a row's work. A logical axis
# that is not listed is replicated. The first axis of a weight (in, out) that can be split gets a
# mesh axis: pieces a few columns wide would be padded to 128 on a TPU. Context is gathered last,
# when there is most to send: its devices are the nearest neighbours, GPUs of one node, and fsdp
# then sends 1 / context of that over the network.
PIECES = ('context', 'fsdp')
PARAMETERS = {
  'embed': PIECES,
  'channels_in': PIECES,
  'channels': PIECES,
  'heads': ('tensor', *PIECES),
  'hidden': ('tensor', *PIECES),
}

Entry = tuple[str, ...]  # mesh axes of one array axis, slowest first


def ambient() -> AbstractMesh | None:
  """Returns the mesh that `jax.set_mesh` set, or None if it is empty or has one device."""
  mesh = jax.sharding.get_abstract_mesh()
  return None if mesh.empty or mesh.size == 1 else mesh


def size(mesh: Mesh | AbstractMesh, axes: Sequence[str]) -> int:
  """Returns the number of pieces into which some mesh axes split an array."""
  return math.prod(mesh.shape[axis] for axis in axes)


def fit(axes: Sequence[str], length: int, mesh: Mesh | AbstractMesh) -> Entry:
  """Returns the longest prefix of `axes` that divides `length`, without axes of size 1.

  The choice depends on the length alone, so that equal arrays get one answer.
  """
  fitting_axes: list[str] = []
  for axis in axes:
    if mesh.shape[axis] > 1:
      if length % size(mesh, [*fitting_axes, axis]):
        break
      fitting_axes.append(axis)
  return tuple(fitting_axes)


def parameter_entries(
  names: Sequence[str | None], shape: Sequence[int], mesh: Mesh | AbstractMesh
) -> tuple[Entry, ...]:
  """Returns the mesh axes of every axis of a parameter.

  A mesh axis is used once, by the first logical axis that asks for it and whose size it divides. A
  vector stays whole: its shards would cost more in latency than they save. Raises ConfigError if an
  axis has no name or an unknown one.
  """
  if len(names) != len(shape) or any(name not in LOGICAL_AXES for name in names):
    raise ConfigError(f'a parameter of shape {shape} names its axes {names}; see core/axes.py')
  entries: list[Entry] = []
  if sum(name != 'layers' for name in names) < 2:
    return ((),) * len(names)
  for name, length in zip(names, shape, strict=True):
    used = {axis for entry in entries for axis in entry}
    free = [axis for axis in PARAMETERS.get(name or '', ()) if axis not in used]
    entries.append(fit(free, length, mesh))
  return tuple(entries)


def token_entries(
  shape: Sequence[int], mesh: Mesh | AbstractMesh, *, features: bool = False
) -> tuple[Entry, ...]:
  """Returns the mesh axes of an activation: rows first, then tokens, or the time of a video.

  The shape is (b d), (b n d), (b t h w c), or any other that begins with rows. With `features` the
  last axis is split over `tensor`, and tokens therefore are not.
  """
  entries: list[Entry] = [()] * len(shape)
  entries[0] = fit(BATCH, shape[0], mesh)
  if len(shape) == 3:
    entries[1] = fit(TOKENS[:1] if features else TOKENS, shape[1], mesh)
  if len(shape) == 5:
    entries[1] = fit(TIME, shape[1], mesh)
  if features:
    entries[-1] = fit(('tensor',), shape[-1], mesh)
  return tuple(entries)


def spec(entries: Sequence[Entry]) -> PartitionSpec:
  """Converts entries to a PartitionSpec of JAX."""
  return PartitionSpec(*(entry[0] if len(entry) == 1 else entry or None for entry in entries))


def partition(
  names: Sequence[str | None], shape: Sequence[int], mesh: Mesh | AbstractMesh
) -> PartitionSpec:
  """Returns the PartitionSpec of a parameter; see `parameter_entries`."""
  return spec(parameter_entries(names, shape, mesh))


def place_tokens(x: Array) -> Array:
  """Keeps an activation (b n d) split over rows and tokens; nothing without a mesh."""
  return _placed(x, functools.partial(token_entries, x.shape))


def place_channels(x: Array) -> Array:
  """Splits an activation (b n d) over rows and channels, not tokens; nothing without a mesh."""
  b = x.shape[0]
  d = x.shape[-1]
  return _placed(x, lambda mesh: (fit(BATCH, b, mesh), (), fit(TOKENS, d, mesh)))


def place_rows(x: Array) -> Array:
  """Splits an array over rows alone; nothing without a mesh."""
  return _placed(x, lambda mesh: [fit(BATCH, x.shape[0], mesh)])


def _placed(x: Array, entries: Callable[[Mesh | AbstractMesh], Sequence[Entry]]) -> Array:
  mesh = ambient()
  return x if mesh is None else jax.lax.with_sharding_constraint(x, spec(entries(mesh)))


def tokens_missing(count: int) -> int:
  """Returns how many padding tokens give each device that shares a row equally many tokens.

  Long sequences are padded to a multiple of 128 tokens a device, as attention kernels need.
  """
  mesh = ambient()
  if mesh is None:
    return 0
  pieces = size(mesh, TOKENS)
  lanes = pieces * 128
  return -count % (lanes if count >= 16 * lanes else pieces)


def place_whole(x: Array) -> Array:
  """Makes a small parameter whole on every device before it is used; nothing without a mesh."""
  if ambient() is None:
    return x
  return jax.lax.with_sharding_constraint(x, PartitionSpec())
