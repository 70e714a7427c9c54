"""Matrix products with sharded weights: gathered before use, gradients reduce-scattered.

A weight is a float32 master, sharded over `fsdp` and `context` (and `tensor`). Before a product its
shards are cast to the compute type, *then* gathered, over `fsdp` first and `context` second. Its
gradient, a partial sum on every device, takes the reverse way as two reduce-scatters. As sharding
constraints for the compiler, a gather over all axes of a three-dimensional torus becomes an
all-reduce of zero-padded matrices, and so does the gradient: twice the bytes. Weights are gathered
again in the backward pass; no rematerialisation policy keeps a gathered weight.
"""

import functools
import math
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
from jax import lax
from jax.experimental.layout import Layout, with_layout_constraint
from jax.sharding import AbstractMesh

from mgjax.core.derivatives import with_backward
from mgjax.core.typing import Array
from mgjax.parallel.halo import halo
from mgjax.parallel.rules import Entry, ambient, parameter_entries, size, spec, token_entries
from mgjax.parallel.stationary import make_stationary, stays

Local = Callable[..., tuple[Array, ...]]


def weighted(
  local: Local,
  x: Array,
  kernels: Sequence[Array],
  names: tuple[str, ...],
  dtype: jnp.dtype,
  edge: int = 0,
) -> tuple[Array, ...]:
  """Returns local(x, *kernels); on a mesh, with rows and tokens of `x` and the kernels sharded.

  With an `edge` it is local((before, x, after), *kernels), with `edge` frames on each side
  (`halo`).

  If kernels are split over `tensor` along their last axis, results are split along features, and
  `x` is gathered along tokens. If they are split along the last axis but one, `x` is split along
  features, and results are summed and scattered along tokens. This is tensor parallelism with
  sequence-parallel norms.

  If `x` is a vector a row and smaller than the kernels, `x` is gathered instead (`stationary.py`).

  A video of shape (b t h w c) is split along time if every device can compute its frames of the
  result from its frames of `x`. A stride of 2 therefore needs an even number of frames a device.
  Otherwise every device sees all frames.

  Args:
    local: bilinear in x and each kernel, one result a kernel; rows and tokens do not mix in it,
      and frames only within its window.
    x: activation, rows first.
    kernels: float32, of equal shape except for the last axis; of any type in sampling.
    edge: frames that `local`, of window 2 edge + 1 and stride 1 or 2 in time, reads beyond both
      ends of `x`: its neighbours', and copies of the first and last frame beyond those.
  """
  mesh = ambient()
  x = x.astype(dtype)
  kernels = tuple(kernels)
  if mesh is None:
    return _extending(local, edge)(x, *(kernel.astype(dtype) for kernel in kernels))
  shapes = tuple(kernel.shape for kernel in kernels)
  return _make_island(local, x.shape, shapes, names, dtype, edge, mesh)(x, kernels)


@functools.lru_cache(maxsize=512)  # equal calls share one trace
def _make_island(local, x_shape, shapes, names, dtype, edge: int, mesh: AbstractMesh):
  entries = [parameter_entries(names, shape, mesh) for shape in shapes]
  if stays(x_shape, shapes):
    return make_stationary(local, x_shape, entries, dtype, mesh)
  columns = all('tensor' in entry[-1] for entry in entries)
  rows = all('tensor' in entry[-2] for entry in entries)
  x_in = token_entries(x_shape, mesh, features=rows)
  arrays = [jax.ShapeDtypeStruct(shape, dtype) for shape in (x_shape, *shapes)]
  y_shapes = jax.eval_shape(_extending(local, edge), *arrays)
  y_out = [token_entries(y.shape, mesh, features=columns) for y in y_shapes]
  if len(x_shape) == 5:
    x_in, *y_out = _in_step([x_in, *y_out], x_shape[1], edge, mesh)
    local = _extending(local, edge, 'context' if x_in[1] else None)
  x_spec = spec(x_in)
  w_spec = tuple(map(spec, entries))
  y_spec = tuple(map(spec, y_out))
  scattered = len(x_shape) == 3 and 'tensor' in token_entries(x_shape, mesh)[1]
  split = {axis for entry in x_in[:-1] for axis in entry} - ({'tensor'} if columns else set())

  def enter(array: Array, is_split: bool) -> Array:
    return lax.all_gather(array, 'tensor', axis=1, tiled=True) if is_split and scattered else array

  def leave(array: Array, is_partial: bool) -> Array:
    if not is_partial:
      return array
    if scattered:
      return lax.psum_scatter(array, 'tensor', scatter_dimension=1, tiled=True)
    return lax.psum(array, 'tensor')

  def gathered(kernels) -> tuple[Array, ...]:
    whole = []
    for kernel, entry in zip(kernels, entries, strict=True):
      narrower = kernel.dtype.itemsize < dtype.itemsize  # the smaller of the two travels
      whole.append(gather(kernel if narrower else kernel.astype(dtype), entry).astype(dtype))
    return tuple(whole)

  def forward(x, kernels):
    ys = local(enter(x, columns), *gathered(kernels))
    return tuple(leave(y, rows) for y in ys)

  def backward(x, kernels, dys):
    dys = tuple(enter(dy, rows) for dy in dys)
    _, transpose = jax.vjp(local, enter(x, columns), *gathered(kernels))
    dx, *gradients = transpose(dys)
    scattered_gradients = tuple(
      scatter(gradient, entry, split).astype(kernel.dtype)
      for gradient, entry, kernel in zip(gradients, entries, kernels, strict=True)
    )
    return leave(dx, columns), scattered_gradients

  run = jax.shard_map(forward, in_specs=(x_spec, w_spec), out_specs=y_spec, check_vma=False)
  run_back = jax.shard_map(
    backward, in_specs=(x_spec, w_spec, y_spec), out_specs=(x_spec, w_spec), check_vma=False
  )

  return with_backward(run, lambda saved, dys: run_back(saved[0], saved[1], dys))


def _extending(local: Local, edge: int, axis_name: str | None = None) -> Local:
  if not edge:
    return local

  def extended(x: Array, *kernels: Array) -> tuple[Array, ...]:
    before, after = halo(x, edge, axis_name)
    return local((before, x, after), *kernels)

  return extended


def _in_step(
  entries: Sequence[tuple[Entry, ...]], frames: int, edge: int, mesh: AbstractMesh
) -> list[tuple[Entry, ...]]:
  """Splits time in all videos of a product or in none: all must be split, in long enough pieces."""
  first = entries[0][1]
  if all(entry[1] == first for entry in entries) and frames // size(mesh, first) >= edge:
    return list(entries)
  return [(rows, (), *rest) for rows, _, *rest in entries]


def gather(piece: Array, entries: Sequence[Entry]) -> Array:
  """Gathers a device's piece over all its mesh axes but `tensor`, fastest axis first."""
  for dimension, entry in enumerate(entries):
    for axis in reversed(entry):
      if axis != 'tensor':
        piece = lax.all_gather(piece, axis, axis=dimension, tiled=True)
  return piece


def scatter(partial: Array, entries: Sequence[Entry], split: set[str]) -> Array:
  """Sums an array over the axes in `split` and returns this device's piece: reverses `gather`.

  It works in stages, because a sum over two mesh axes at once becomes an all-reduce of the array.
  Along an axis that is not in `split` devices hold equal arrays, so the piece is only cut out.
  """
  unsummed = set(split)
  for dimension, entry in enumerate(entries):
    axes = [axis for axis in entry if axis != 'tensor']
    # Equal arrays are cut first, so that less is sent.
    for axis in reversed([axis for axis in axes if axis not in split]):
      partial = _cut(partial, dimension, axes, axis)
    for axis in [axis for axis in axes if axis in split]:
      unsummed.remove(axis)
      partial = _scattered(partial, dimension, axis)
  return lax.psum(partial, tuple(sorted(unsummed))) if unsummed else partial


def _scattered(partial: Array, dimension: int, axis: str) -> Array:
  """Sums an array over a mesh axis and returns this device's piece of a dimension.

  A TPU cannot scatter a sum along the last axis of its layout, nor over a mesh axis that contains
  all chips of the slice. The compiler would fall back to an all-reduce of the array.
  """
  partial = with_layout_constraint(partial, Layout(tuple(range(partial.ndim))))
  once = functools.partial(
    lax.psum_scatter, axis_name=axis, scatter_dimension=dimension, tiled=True
  )
  if lax.axis_size(axis) < jax.sharding.get_abstract_mesh().size:
    return once(partial)
  stages = functools.partial(scatter_in_stages, axis=axis, dimension=dimension)
  return lax.platform_dependent(partial, tpu=stages, default=once)


def scatter_in_stages(partial: Array, axis: str, dimension: int) -> Array:
  """Computes a tiled `lax.psum_scatter` as two of them over groups of a mesh axis.

  For an axis of a * b devices, b groups of a devices, one from each row, first sum and cut a
  dimension into a parts. Then the b devices of each row cut theirs. It sends as many bytes as one.
  """
  count = lax.axis_size(axis)
  row = max(n for n in range(1, math.isqrt(count) + 1) if count % n == 0)
  across = [list(range(column, count, row)) for column in range(row)]
  rows = [list(range(first, first + row)) for first in range(0, count, row)]
  for groups in (across, rows):
    partial = lax.psum_scatter(
      partial, axis, scatter_dimension=dimension, axis_index_groups=groups, tiled=True
    )
  return partial


def _cut(x: Array, dimension: int, axes: Sequence[str], axis: str) -> Array:
  """Returns this device's part along one of the mesh axes over which a dimension is split.

  Axes before it in `axes` are not cut yet; those after it are cut if their arrays were equal.
  """
  outer = [lax.axis_size(name) for name in axes[: axes.index(axis)]]
  shape = x.shape
  count = lax.axis_size(axis)
  inner = shape[dimension] // (math.prod(outer) * count)
  x = x.reshape(*shape[:dimension], math.prod(outer), count, inner, *shape[dimension + 1 :])
  x = lax.dynamic_index_in_dim(x, lax.axis_index(axis), dimension + 1, keepdims=False)
  return x.reshape(*shape[:dimension], math.prod(outer) * inner, *shape[dimension + 1 :])
