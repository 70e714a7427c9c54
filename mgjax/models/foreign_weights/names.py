"""Maps tensors of other projects to our parameters by tables that account for every name.

A table is a sequence of rows. `{layer}` in the name of a tensor counts the layers that a scan of
ours stacks: `Row('layers/up/kernel', 'block.{layer}.up.weight', TRANSPOSED)` makes one parameter
(l i o) of l tensors (o i). A row whose parameter the model does not have says nothing.
"""

import fnmatch
import functools
import math
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from mgjax.core.errors import ConfigError
from mgjax.core.safetensors_files import (
  AnyTensor,
  StoredTensor,
  are_finite_floats,
  check_complete,
  listed,
)
from mgjax.core.tree import named_leaves
from mgjax.core.typing import Tree

LAYER = '{layer}'
_ALIGNMENT = 64  # bytes; JAX copies arrays that begin elsewhere
TRANSPOSED = (1, 0)  # (o i) of PyTorch's linear maps


class TensorName(NamedTuple):
  """A row of a table: a parameter of ours, and the tensor that holds it."""

  ours: str | None  # name of the parameter; None for tensors that are left out
  # Name of the tensor, or several of which any may be there; of those that are, all are equal. The
  # first is written where nothing else is asked for. Where `ours` is None, a pattern as of a shell:
  # 'decoder.*'.
  theirs: str | tuple[str, ...]
  axes: tuple[int, ...] = ()  # of the tensor, in the order that the parameter has them; () keeps it
  # Which of how many equal parts along the tensor's first axis the parameter is.
  part: tuple[int, int] = (0, 1)
  # Sizes of the tensor's leading axes, in the parameter's order, that the parameter's first axis
  # holds together with the next one: (1, 2, 2) for a kernel (t h w c, d) of a tensor (t h w c d).
  fold: tuple[int, ...] = ()

  @property
  def names(self) -> tuple[str, ...]:
    """Those of `theirs`."""
    return (self.theirs,) if isinstance(self.theirs, str) else self.theirs


def import_tensors(
  rows: Sequence[TensorName],
  tensors: Mapping[str, AnyTensor],
  params: Tree,
  *,
  expected: str,
  keep_type: bool = False,
) -> tuple[Tree, list[str]]:
  """Fills all parameters from tensors, in float32 or with `keep_type` in the tensors' types.

  Tensors are read one by one into the arrays that are returned, so memory is that of the parameters
  and of one tensor. JAX can use these arrays without a copy. Of `params` shapes are enough;
  `expected` says in the message whose tensors these should be. Beside the parameters it returns the
  names of the tensors that the table leaves out. Raises ConfigError if a tensor is missing, in no
  row, of another shape, empty, not of finite floats, or there twice and unequal; or a parameter is
  in no row.
  """
  leaves = named_leaves(params)
  table = _by_parameter(rows, leaves)
  used = {}
  missing = []
  misshapen = []
  for ours, leaf in leaves.items():
    for names in _names(table[ours], leaf.shape):
      present = [name for name in names if name in tensors]
      used |= dict.fromkeys(present)
      missing += [] if present else [names[0]]
      expected_shape = _shape_of_tensor(table[ours], leaf.shape)
      misshapen += [
        f'{n} {tensors[n].shape}' for n in present if not _fits(tensors[n], expected_shape)
      ]
  rest = [name for name in tensors if name not in used]
  left_out = [row.theirs for row in rows if row.ours is None]
  unknown = [n for n in rest if not any(fnmatch.fnmatchcase(n, str(p)) for p in left_out)]
  check_complete(missing=missing, unknown=unknown, misshapen=misshapen, expected=expected)
  values = [_filled(tensors, table[ours], leaf.shape, keep_type) for ours, leaf in leaves.items()]
  return jax.tree.unflatten(jax.tree.structure(params), values), sorted(set(rest) - set(unknown))


def export_tensors(
  rows: Sequence[TensorName],
  params: Tree,
  types: Mapping[str, str] | None = None,
  layout: int | None = None,
) -> dict[str, StoredTensor]:
  """Returns all parameters by the names of a table: `import_tensors` reversed.

  A tensor is computed when it is read, so the result takes no memory. `types` are those of the
  tensors whence the parameters came, by name. Then the same ones are written, of a parameter that
  stood there by several names all of them, in the same types: bit by bit what was imported. Without
  it the first names are, in the parameters' types. `layout` chooses which name of each row is
  written instead, 0 for the first and -1 for the last. Raises ConfigError if a parameter is in no
  row.
  """
  types = types or {}
  leaves = named_leaves(params)
  table = _by_parameter(rows, leaves)
  parts: dict[str, dict[int, StoredTensor]] = {}
  for ours, leaf in leaves.items():
    row = table[ours]
    array = np.asarray(leaf)
    layers = array if LAYER in row.names[0] else array[None]
    for index, names in enumerate(_names(row, array.shape)):
      known = [name for name in names if name in types]
      dtype = np.dtype(types[known[0]]) if known else array.dtype
      # An index of a vector gives a scalar, and a slice an array.
      load = functools.partial(_written, row, layers[index : index + 1], dtype)
      tensor = StoredTensor(shape_in_file(row, layers.shape[1:]), dtype, load)
      for name in (known or names[:1]) if layout is None else [names[layout]]:
        parts.setdefault(name, {})[row.part[0]] = tensor
  return {name: _joined([rows[i] for i in sorted(rows)]) for name, rows in parts.items()}


def _written(row: TensorName, layer: np.ndarray, dtype: np.dtype) -> np.ndarray:
  return np.asarray(to_theirs(row, layer[0, ...]), dtype, order='C')


def _joined(parts: Sequence[StoredTensor]) -> StoredTensor:
  if len(parts) == 1:
    return parts[0]
  shape = sum(part.shape[0] for part in parts), *parts[0].shape[1:]
  return StoredTensor(shape, parts[0].dtype, lambda: np.concatenate([*map(np.asarray, parts)]))


def to_ours(row: TensorName, tensor: np.ndarray) -> np.ndarray:
  """Returns a tensor with the axes of its parameter, of one layer if that is a stack."""
  tensor = tensor.transpose(row.axes) if row.axes else tensor
  if not row.fold:
    return tensor
  folded = len(row.fold) + 1
  return tensor.reshape(math.prod(tensor.shape[:folded]), *tensor.shape[folded:])


def to_theirs(row: TensorName, array: np.ndarray) -> np.ndarray:
  """Returns a parameter, or one layer of a stack, with the axes of its tensor."""
  tensor = array.reshape(_unfolded(row, array.shape))
  return tensor.transpose(np.argsort(row.axes)) if row.axes else tensor


def shape_in_file(row: TensorName, shape: tuple[int, ...]) -> tuple[int, ...]:
  """Returns the shape of the tensor of a parameter, or of one layer of a stack, of this shape."""
  shape = _unfolded(row, shape)
  return tuple(shape[axis] for axis in np.argsort(row.axes)) if row.axes else shape


def arrange(
  params: Tree,
  names: Mapping[str, str],
  arrays: Mapping[str, np.ndarray],
  tensors: Mapping[str, np.ndarray],
  expected: str,
) -> Tree:
  """Replaces some parameters by arrays; of those that are replaced shapes are enough.

  `names` maps a parameter to its tensor among `tensors`, `arrays` to its array; `expected` says in
  the message whose tensors these should be. Raises ConfigError if an array is missing, empty or of
  another shape, or a tensor is left over.
  """
  leaves = named_leaves(params)
  check_complete(
    missing=[theirs for ours, theirs in names.items() if ours not in arrays],
    unknown=sorted(tensors.keys() - set(names.values())),
    misshapen=[
      f'{names[ours]} {tensors[names[ours]].shape}'
      for ours, array in arrays.items()
      if not _fits(array, leaves[ours].shape)
    ],
    expected=expected,
  )
  values = [arrays.get(name, leaf) for name, leaf in leaves.items()]
  return jax.tree.unflatten(jax.tree.structure(params), values)


def _fits(tensor: AnyTensor, shape: tuple[int, ...]) -> bool:
  # An empty tensor may claim any size along its other axes without taking bytes of its file.
  return tensor.shape == shape and tensor.size > 0


def _by_parameter(rows: Sequence[TensorName], leaves: Collection[str]) -> dict[str, TensorName]:
  table: dict[str, TensorName] = {}
  for row in rows:
    if row.ours in table:
      raise ConfigError(f'the table of names has two rows of the parameter {row.ours}')
    if row.ours is not None:
      table[row.ours] = row
  if unnamed := [name for name in leaves if name not in table]:
    raise ConfigError(f'the table of names has no row of the parameter {unnamed[0]}')
  return table


def _names(row: TensorName, shape: tuple[int, ...]) -> Iterator[tuple[str, ...]]:
  """Yields the tensor's names; those of every layer where the parameter is a stack."""
  for layer in range(shape[0] if LAYER in row.names[0] else 1):
    yield tuple(name.replace(LAYER, str(layer)) for name in row.names)


def _shape_of_tensor(row: TensorName, shape: tuple[int, ...]) -> tuple[int, ...]:
  shape = shape_in_file(row, shape[1:] if LAYER in row.names[0] else shape)
  return (shape[0] * row.part[1], *shape[1:]) if shape else ()


def _unfolded(row: TensorName, shape: tuple[int, ...]) -> tuple[int, ...]:
  if not row.fold:
    return shape
  return (*row.fold, shape[0] // math.prod(row.fold), *shape[1:])


def _filled(
  tensors: Mapping[str, AnyTensor], row: TensorName, shape: tuple[int, ...], keep_type: bool
) -> np.ndarray:
  """Returns a parameter, filled tensor by tensor."""
  names_of_layers = [[n for n in names if n in tensors] for names in _names(row, shape)]
  types = {tensors[names[0]].dtype for names in names_of_layers}
  dtype = functools.reduce(jnp.promote_types, types) if keep_type else np.float32
  parameter = _aligned(shape, np.dtype(dtype))
  for index_of_layer, names in enumerate(names_of_layers):
    layer = parameter[index_of_layer, ...] if LAYER in row.names[0] else parameter
    tensor = _read(tensors, names)
    index, count = row.part
    if count > 1:
      size = tensor.shape[0] // count
      tensor = tensor[index * size : (index + 1) * size]
    layer.reshape(_unfolded(row, layer.shape))[...] = tensor.transpose(
      row.axes or range(tensor.ndim)
    )
  return parameter


def _read(tensors: Mapping[str, AnyTensor], names: Sequence[str]) -> np.ndarray:
  """Reads a tensor that has one name or several. Raises ConfigError if numbers are wrong."""
  first, *others = names
  tensor = np.asarray(tensors[first])
  if not are_finite_floats(tensor):
    spoilt = listed({'tensors are not of finite floats': [f'{first} {tensor.dtype}']})
    raise ConfigError(f'{spoilt}; get them again')
  for other in others:
    if tensor.tobytes() != tensors[other].tobytes():
      raise ConfigError(f'{first} and {other} are one tensor by two names, but differ; drop one')
  return tensor


def _aligned(shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
  """Returns an array that `jax.device_put` takes on a CPU without a copy."""
  size = math.prod(shape) * dtype.itemsize
  data = np.empty(size + _ALIGNMENT, np.uint8)
  begin = -data.ctypes.data % _ALIGNMENT
  return data[begin : begin + size].view(dtype).reshape(shape)
