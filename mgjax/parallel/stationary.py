"""Products with stationary weights: weights keep their shards, and the smaller activations travel.

A vector a row, as the embedding of the flow time, has fewer numbers than the weight that it is
multiplied with. A gathered weight would be held from the forward pass to the backward one. So each
device multiplies all rows by its own piece:

  y = sum_i x[:, i] W[i],   dW[i, o] = x[:, i]^T dy[:, o],   dx[:, i] = sum_o dy[:, o] W[i, o]^T

with i and o the pieces of inputs and outputs. Rows are gathered, sums are of (rows, features), and
the gradient of a piece needs no device but its own.
"""

from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
from jax import lax
from jax.sharding import AbstractMesh

from mgjax.core.derivatives import with_backward
from mgjax.core.precision import wide
from mgjax.core.typing import Array
from mgjax.parallel.rules import Entry, size, spec, token_entries

_Local = Callable[..., tuple[Array, ...]]


def stays(x_shape: Sequence[int], shapes: Sequence[tuple[int, ...]]) -> bool:
  """Returns whether rows and results together, (b d) and (b o), are smaller than the weights."""
  if len(x_shape) != 2 or any(len(shape) != 2 for shape in shapes):
    return False
  outputs = sum(shape[1] for shape in shapes)
  return x_shape[0] * (x_shape[1] + outputs) < x_shape[1] * outputs


def make_stationary(
  local: _Local,
  x_shape: tuple[int, ...],
  entries: Sequence[tuple[Entry, ...]],
  dtype: jnp.dtype,
  mesh: AbstractMesh,
) -> Callable[..., tuple[Array, ...]]:
  """Makes (x, kernels) -> x W for every kernel.

  `local` is bilinear in x (b d) and each kernel (d o), one result (b o) a kernel; `entries` are the
  mesh axes of inputs and outputs of each, of inputs the same for all.
  """
  rows = token_entries(x_shape, mesh)[0]
  inputs = entries[0][0]
  outputs = [entry[1] for entry in entries]
  x_spec = spec((rows, ()))
  w_spec = tuple(map(spec, entries))
  y_spec = (x_spec,) * len(entries)

  def whole(array: Array, axis: int, entry: Entry) -> Array:
    for name in reversed(entry):
      array = lax.all_gather(array, name, axis=axis, tiled=True)
    return array

  def own(array: Array, axis: int, entry: Entry) -> Array:
    count = size(mesh, entry)
    length = array.shape[axis] // count
    begin = lax.axis_index(entry) * length if entry else 0
    return lax.dynamic_slice_in_dim(array, begin, length, axis)

  def summed(array: Array, entry: Entry) -> Array:
    return lax.psum(array.astype(wide(array.dtype)), entry) if entry else array

  def forward(x, kernels):
    piece = own(whole(x, 0, rows), 1, inputs)
    ys = local(piece, *(kernel.astype(dtype) for kernel in kernels))
    pairs = zip(ys, outputs, strict=True)
    sums = [(summed(y, inputs).astype(dtype), entry) for y, entry in pairs]
    return tuple(own(whole(y, 1, entry), 0, rows) for y, entry in sums)

  def backward(x, kernels, dys):
    piece = own(whole(x, 0, rows), 1, inputs)
    dys = [own(whole(dy, 0, rows), 1, entry) for dy, entry in zip(dys, outputs, strict=True)]
    cast = tuple(kernel.astype(dtype) for kernel in kernels)
    _, to_weights = jax.vjp(lambda *cast: local(piece, *cast), *cast)
    gradients = to_weights(tuple(dys))
    dx = jnp.zeros(piece.shape, jnp.float32)
    for index, entry in enumerate(outputs):
      _, to_inputs = jax.vjp(lambda piece, index=index: local(piece, cast[index])[0], piece)
      dx += summed(to_inputs(dys[index])[0], entry).astype(jnp.float32)
    pairs = zip(gradients, kernels, strict=True)
    dx = own(whole(dx.astype(dtype), 1, inputs), 0, rows)
    return dx, tuple(gradient.astype(kernel.dtype) for gradient, kernel in pairs)

  run = jax.shard_map(forward, in_specs=(x_spec, w_spec), out_specs=y_spec, check_vma=False)
  run_back = jax.shard_map(
    backward, in_specs=(x_spec, w_spec, y_spec), out_specs=(x_spec, w_spec), check_vma=False
  )

  return with_backward(run, lambda saved, dys: run_back(saved[0], saved[1], dys))
