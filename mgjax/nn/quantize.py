"""Weights for sampling in fewer bits: kernels of the backbone in 1 or 2 bytes a number.

A kernel W (inputs, outputs), or (layers, inputs, outputs) of a stack, becomes q of its shape and a
float32 scale s of each output (of each layer):

  s_o  = max_i |W_io| / top          top = 127 of int8, 448 of float8_e4m3fn ('fp8')
  q_io = round(W_io / s_o)           W ~ q s

|W - q s| is at most s / 2 for int8, and for fp8 the larger of |W| / 16 and s / 1024. Products
compute (x q) s instead of x W (`nn.linear.products`): q is cast to the compute type, in which it is
exact, a layer at a time. So activations and products keep their types, with fp8 too.

In a tree such a kernel is {'quantised': q, 'scale': s}; checkpoints and files store both as any
other leaf. Norms, biases, tables and all conditioning parameters keep their types.
"""

import dataclasses
import functools
import logging
import math
from collections.abc import Iterable, Mapping

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.sharding import NamedSharding

from mgjax.core.errors import ConfigError
from mgjax.core.precision import QUANTISED, SCALE, STORED, stored_type
from mgjax.core.tree import named_leaves, nest, within
from mgjax.core.typing import Array, Num, Tree
from mgjax.parallel.shard import named_boxes, replicated

# the subtree with the kernels, and the suffix of their names
_REACHED = 'backbone'
_KERNEL = '/kernel'
_QUANTISED, _SCALE = f'{_KERNEL}/{QUANTISED}', f'{_KERNEL}/{SCALE}'

_log = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class Reached:
  """What a type of weights changes: kernels, parameters in them and in all, and bytes."""

  kernels: tuple[str, ...]
  numbers: int
  parameters: int
  before: int
  after: int

  def __str__(self) -> str:
    return (
      f'{len(self.kernels)} kernels, {self.numbers:,} of {self.parameters:,} parameters; '
      f'{self.before:,} bytes before, {self.after:,} after'
    )


def store(params: Tree, weights: str) -> Tree:
  """Returns parameters with the backbone's kernels in another type; logs the effect.

  `weights` is a name in `core.precision.STORED`; '' changes nothing. On a mesh q is sharded as the
  kernel was; scales are replicated, as all vectors. Raises ConfigError if there is no such type, if
  there is no kernel to change, or if kernels are already quantised to another type.
  """
  if not weights or _is_done(named_leaves(params), weights):
    return params
  _log.info('weights in %s: %s', weights, count(params, weights))
  return _changed(params, weights)


def stored_shapes(shapes: Tree, weights: str) -> Tree:
  """Returns the shapes, or boxes, that `store` makes of parameters; raises the same errors."""
  if not weights or _is_done(named_leaves(nn.unbox(shapes)), weights):
    return shapes
  count(shapes, weights)
  return _changed(shapes, weights)


def bytes_of(shapes: Tree, weights: str = '') -> int:
  """Returns the total bytes of parameters (arrays, shapes, boxes) in sampling, over all devices.

  Parameters that `weights` does not change count in their present type. Raises ConfigError as
  `store`.
  """
  return sum(map(_bytes, jax.tree.leaves(nn.unbox(stored_shapes(shapes, weights)))))


def count(shapes: Tree, weights: str) -> Reached:
  """Counts the kernels that `store` changes in parameters, which may be arrays, shapes or boxes.

  Raises ConfigError if there is no such type, or no kernel to change.
  """
  dtype = stored_type(weights)
  leaves = named_leaves(nn.unbox(shapes))
  reached = kernels(leaves)
  if not reached:
    raise ConfigError(
      f'weights = {weights!r}, and none of {len(leaves)} parameters is a kernel of the '
      f'{_REACHED}; only flow models are sampled with weights of other types, leave it out'
    )
  numbers = sum(math.prod(leaves[name].shape) for name in reached)
  parameters = sum(math.prod(leaf.shape) for leaf in leaves.values())
  before = sum(map(_bytes, leaves.values()))
  scales = 0
  if _has_scale(dtype):
    scales = sum(math.prod(_of_outputs(leaves[name].shape)) for name in reached)
  saved = sum(_bytes(leaves[name]) for name in reached) - numbers * dtype.itemsize - 4 * scales
  return Reached(reached, numbers, parameters, before, before - saved)


def dequantised(params: Tree) -> Tree:
  """Returns parameters with q s, in float32, in place of every quantised kernel."""
  leaves = named_leaves(params)
  dense = {}
  if not is_quantised(leaves):
    return params
  for name, leaf in leaves.items():
    if name.endswith(_QUANTISED):
      kernel = name.removesuffix(f'/{QUANTISED}')
      dense[kernel] = _widened(leaf, leaves[f'{kernel}/{SCALE}'])
    elif not name.endswith(_SCALE):
      dense[name] = leaf
  return nest(dense)


def widened(params: Tree) -> Tree:
  """Casts every q to float32, which is exact, and keeps its s.

  For CPUs, which would cast it at every step and gain nothing else from 1-byte weights.
  """
  return nest(
    {
      name: leaf.astype(jnp.float32) if name.endswith(_QUANTISED) else leaf
      for name, leaf in named_leaves(params).items()
    }
  )


def quantised_as(leaves: Mapping[str, Tree]) -> str:
  """Returns the name of the type of quantised kernels among leaves; '' if there are none."""
  types = {leaf.dtype for name, leaf in leaves.items() if name.endswith(_QUANTISED)}
  return next((name for name, dtype in STORED.items() if jnp.dtype(dtype) in types), '')


def is_quantised(names: Iterable[str]) -> bool:
  """Returns whether there are quantised kernels among parameters of these names."""
  return any(name.endswith(_QUANTISED) for name in names)


def is_of_quantised(name: str) -> bool:
  """Returns whether a leaf is the q or the s of a quantised kernel."""
  return name.endswith((_QUANTISED, _SCALE))


def _is_done(leaves: Mapping[str, Tree], weights: str) -> bool:
  """Returns whether kernels have the type `weights`. Raises ConfigError if they have another."""
  stored_type(weights)
  actual = quantised_as(leaves)
  if actual not in ('', weights):
    raise ConfigError(
      f'weights = {weights!r}, and these were saved as {actual!r}, of which no other is made; '
      'leave it out, or take the run that they are from'
    )
  return bool(actual)


def kernels(names: Iterable[str]) -> tuple[str, ...]:
  """Returns the names of kernels that `store` can change and has not changed yet."""
  return tuple(name for name in names if within(name, _REACHED) and name.endswith(_KERNEL))


def _has_scale(dtype: jnp.dtype) -> bool:
  return dtype.itemsize == 1


def _changed(tree: Tree, weights: str) -> Tree:
  """Converts the kernels in a tree of arrays, shapes or boxes."""
  dtype = stored_type(weights)
  leaves = {}
  named = named_boxes(tree)
  reached = set(kernels(named))
  for name, leaf in named.items():
    if name not in reached:
      leaves[name] = leaf
    elif not _has_scale(dtype):
      leaves[name] = _cast(leaf, dtype)
    else:
      q, scale = _shapes(leaf, dtype) if _is_abstract(leaf) else _quantised(leaf, dtype)
      leaves[f'{name}/{QUANTISED}'] = q
      leaves[f'{name}/{SCALE}'] = scale
  return nest(leaves)


def _quantised(kernel: Num[Array, '*l i o'], dtype: jnp.dtype) -> tuple[Array, Array]:
  q, scale = _rounded(kernel, dtype)
  if isinstance(kernel.sharding, NamedSharding):
    q = jax.device_put(q, kernel.sharding)
    scale = jax.device_put(scale, replicated(kernel.sharding.mesh))
  return q, scale


@functools.partial(jax.jit, static_argnums=1)
def _rounded(kernel: Array, dtype: jnp.dtype) -> tuple[Array, Array]:
  is_whole = jnp.issubdtype(dtype, jnp.integer)
  top = float(jnp.iinfo(dtype).max if is_whole else jnp.finfo(dtype).max)
  kernel = kernel.astype(jnp.float32)
  scale = jnp.max(jnp.abs(kernel), axis=-2, keepdims=True) / top
  ratio = jnp.clip(kernel / jnp.where(scale > 0, scale, 1), -top, top)
  return (jnp.round(ratio) if is_whole else ratio).astype(dtype), scale.squeeze(-2)


@jax.jit
def _widened(q: Array, scale: Array) -> Array:
  kernel = q.astype(jnp.float32)
  return kernel * jnp.broadcast_to(jnp.expand_dims(scale, -2), kernel.shape)


def _of_outputs(axes: tuple) -> tuple:
  return (*axes[:-2], axes[-1])


def _shapes(leaf: Tree, dtype: jnp.dtype) -> tuple[Tree, Tree]:
  """Returns the shapes of q and s, in boxes if the kernel's shape is."""
  shape = leaf.value.shape if _is_box(leaf) else leaf.shape
  scale = jax.ShapeDtypeStruct(_of_outputs(shape), jnp.float32)
  if _is_box(leaf):
    scale = nn.LogicallyPartitioned(scale, _of_outputs(leaf.names))
  return _cast(leaf, dtype), scale


def _cast(leaf: Tree, dtype: jnp.dtype) -> Tree:
  if _is_box(leaf):
    return nn.LogicallyPartitioned(_cast(leaf.value, dtype), leaf.names)
  return jax.ShapeDtypeStruct(leaf.shape, dtype) if _is_abstract(leaf) else leaf.astype(dtype)


def _bytes(leaf: Tree) -> int:
  return math.prod(leaf.shape) * leaf.dtype.itemsize


def _is_abstract(leaf: Tree) -> bool:
  return _is_box(leaf) or isinstance(leaf, jax.ShapeDtypeStruct)


def _is_box(leaf: Tree) -> bool:
  return isinstance(leaf, nn.LogicallyPartitioned)
