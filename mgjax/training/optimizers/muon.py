"""Muon: momentum whose matrices are made orthogonal, for the kernels of a network's layers.

Jordan et al. 2024, 'Muon: An optimizer for hidden layers in neural networks'. Updates are scaled as
in Liu et al. 2025, 'Muon is scalable for LLM training', so that a rate tuned for AdamW serves. Not
in Movie Gen. The rule of optax orthogonalises the last two axes of one leaf at a time, which
gathers a sharded kernel on every device. Here all kernels of a shape are one stack, and its
matrices are spread over the devices of the mesh. The taps and inputs of a convolution are the rows
of one matrix, as in Jordan's own runs.
"""

import math
import re

import jax
import jax.numpy as jnp
import numpy as np
import optax

from mgjax.core.errors import ConfigError
from mgjax.core.typing import Array, Float, Tree
from mgjax.parallel.rules import AXES, ambient, size, spec

MOMENTUM = 0.95  # of Jordan et al.
# a x + b x^3 + c x^5 by turns bring singular values from .02 to 1 between .90 and 1.10: each is the
# nearest to 1 for what the last one leaves (Amsel et al. 2025, 'The Polar Express').
LAYER_STEPS = (7.711, -22.1138, 16.2487), (3.2153, -2.4112, 0.5013), (2.2183, -1.594, 0.4107)
# Jordan's lift weak directions five times more; a block is the better for it, and sees more places.
BLOCK_STEPS = ((3.4445, -4.7750, 2.0315),) * 5
RMS = 0.2  # of an update of AdamW, of Liu et al.
_SMALL = 1e-7  # a matrix of zeros stays one
_OF_LAYERS = re.compile(r'(^|/)layers?(_\d+)?/.*kernel$')
# Of autoencoders, between their first convolution and their last.
_OF_BLOCKS = re.compile(r'(^|/)\w*((block|unit)_\d+|_up|_down|attention)/.*kernel$')


def orthogonalised(
  matrices: Float[Array, 'n i o'], polynomials: tuple = LAYER_STEPS, dtype: jnp.dtype = jnp.bfloat16
) -> Float[Array, 'n i o']:
  """Returns matrices U s V^T with singular values s near 1, of matrices U S V^T, by Newton-Schulz.

  X <- a X + (b X X^T + c (X X^T)^2) X    for each polynomial, in `dtype`, float32 sums,
  from X / (1.01 |(X X^T)^2|^(1/4)), a closer bound of the largest singular value than |X|.
  """
  rows, columns = matrices.shape[1:]
  x = jnp.swapaxes(matrices, 1, 2) if rows > columns else matrices
  x = x.astype(jnp.float32)
  x /= jnp.linalg.norm(x, axis=(1, 2), keepdims=True) + _SMALL  # eighth powers do not vanish

  def product(x: Array, y: Array) -> Array:
    return jnp.matmul(x.astype(dtype), y.astype(dtype), preferred_element_type=jnp.float32)

  for step, (a, b, c) in enumerate(polynomials):
    square = product(x, jnp.swapaxes(x, 1, 2))
    fourth = product(square, square)
    if step == 0:
      largest = 1.01 * jnp.linalg.norm(fourth, axis=(1, 2), keepdims=True) ** 0.25 + _SMALL
      x = x / largest
      square = square / largest**2
      fourth = fourth / largest**4
    x = a * x + product(b * square + c * fourth, x)
  return jnp.swapaxes(x, 1, 2) if rows > columns else x


def is_matrix(name: str, axes: int) -> bool:
  """Says whether a parameter is a kernel of a layer: (in, out), a stack, or a convolution's."""
  return is_block(name) or (bool(_OF_LAYERS.search(name)) and axes in (2, 3))


def is_block(name: str) -> bool:
  """Says whether a parameter is a kernel of an autoencoder's block: (..., in, out), one matrix."""
  return bool(_OF_BLOCKS.search(name)) and not _OF_LAYERS.search(name)


def scale_by_muon() -> optax.GradientTransformation:
  """Makes the update of kernels of shape (i, o), or (layers, i, o):

    m <- momentum m + g,    update = 0.2 sqrt(max(i, o)) orthogonalised(g + momentum m)

  whose root mean square is near 0.2, as AdamW's is. A convolution (..., i, o) of an autoencoder is
  one matrix of as many rows as taps and inputs. On a mesh each device orthogonalises a share of the
  matrices: what crosses the network is the momentum once there and once back, in bfloat16.
  """
  orthogonalise = optax.stateless(lambda updates, _: _spread(updates))
  return optax.chain(optax.trace(MOMENTUM, nesterov=True), orthogonalise)


def muon_or(other: optax.GradientTransformation) -> optax.GradientTransformation:
  """Returns `scale_by_muon` for the kernels of layers, and another rule for other parameters.

  Raises ConfigError, when parameters are first seen, if there are no such kernels.
  """

  def labels(params: Tree) -> Tree:
    def label(path, leaf) -> str:
      return 'muon' if is_matrix(_name(path), np.ndim(leaf)) else 'other'

    labelled = jax.tree_util.tree_map_with_path(label, params)
    if jax.tree.leaves(params) and 'muon' not in jax.tree.leaves(labelled):
      raise ConfigError(
        "optimizer.name = 'muon', but no kernel of a layer trains, which it is for; take 'adamw'"
      )
    return labelled

  return optax.partition({'muon': scale_by_muon(), 'other': other}, labels)


def _spread(updates: Tree) -> Tree:
  """Orthogonalises the matrices of all leaves; matrices of one shape form one stack."""
  named, structure = jax.tree_util.tree_flatten_with_path(updates)
  leaves = [leaf for _, leaf in named]
  stacks = []
  groups: dict[tuple[int, int, bool], list[int]] = {}
  for index, (path, leaf) in enumerate(named):
    block = is_block(_name(path))
    rows = leaf.size // leaf.shape[-1] if block else leaf.shape[-2]
    stack = leaf.reshape(-1, rows, leaf.shape[-1])
    stacks.append(jnp.swapaxes(stack, 1, 2) if stack.shape[1] > stack.shape[2] else stack)
    groups.setdefault((*stacks[-1].shape[1:], block), []).append(index)
  for (_, longest, block), members in groups.items():
    stack = jnp.concatenate([stacks[index] for index in members])
    orthogonal = RMS * math.sqrt(longest) * _shared(stack, BLOCK_STEPS if block else LAYER_STEPS)
    begin = 0
    for index in members:
      leaf = leaves[index]
      count = len(stacks[index])
      part = orthogonal[begin : begin + count]
      begin = begin + count
      turned = leaf.size // (count * leaf.shape[-1]) > leaf.shape[-1]
      leaves[index] = (jnp.swapaxes(part, 1, 2) if turned else part).reshape(leaf.shape)
  return jax.tree.unflatten(structure, leaves)


def _name(path: tuple) -> str:
  return jax.tree_util.keystr(path, simple=True, separator='/')


def _shared(stack: Float[Array, 'n i o'], polynomials: tuple) -> Float[Array, 'n i o']:
  """Orthogonalises a stack; on a mesh every device gets the same number of matrices."""
  mesh = ambient()
  count = len(stack)
  # Devices exchange bfloat16; one device rounds too, for equal runs.
  stack = stack.astype(jnp.bfloat16)
  if mesh is None:
    return orthogonalised(stack, polynomials).astype(jnp.bfloat16).astype(jnp.float32)
  stack = jnp.pad(stack, ((0, -count % size(mesh, AXES)), (0, 0), (0, 0)))
  over_all = spec([AXES, (), ()])
  stack = jax.lax.with_sharding_constraint(stack, over_all)
  orthogonal = orthogonalised(stack, polynomials).astype(jnp.bfloat16)
  return jax.lax.with_sharding_constraint(orthogonal, over_all)[:count].astype(jnp.float32)
