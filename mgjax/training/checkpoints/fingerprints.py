"""Fingerprints of arrays, computed on their devices, which tell whether a checkpoint is intact."""

import hashlib
import json
import math
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from mgjax.core.errors import CheckpointError
from mgjax.core.tree import named_leaves
from mgjax.core.typing import Array, Tree

Descriptions = dict[str, list[Any]]  # a leaf's name -> its dtype, shape and fingerprint

_WORDS = {1: jnp.uint8, 2: jnp.uint16, 4: jnp.uint32, 8: jnp.uint32}
_SMALL = 2**20  # elements; of a smaller array NumPy is done before XLA has compiled the program
_PIECE = 2**15  # elements that NumPy mixes at once, which a core keeps in its cache


class Damaged(Exception):
  """The files of a checkpoint are not what was written."""


def fingerprint(x: Array) -> Array:
  """The fingerprint (uint32) of an array of numbers of up to 8 bytes, however it is sharded.

    F(x) = sum_i mix(w_i + 2654435769 i)  mod 2^32

  w_i are the bits of element i in row-major order as an unsigned integer and `mix` is the 32-bit
  finaliser of MurmurHash3. It is a bijection, so any change within one element changes F; other
  changes go unseen with probability 2^-32. The sum of integers does not depend on the order, and
  indices made from iotas instead of a reshape keep a sharded array where it is: no all-gather.
  """
  if x.dtype == jnp.bool_:
    x = x.astype(jnp.uint8)
  word = jax.lax.bitcast_convert_type(x, _WORDS[x.dtype.itemsize]).astype(jnp.uint32)
  index = jnp.zeros(word.shape, jnp.uint32)
  stride = 1
  for axis in reversed(range(word.ndim)):
    position = jax.lax.broadcasted_iota(jnp.uint32, word.shape, axis)
    index = index + position * jnp.uint32(stride % 2**32)
    stride *= word.shape[axis]
  return _mixed_sum(word, index)


def _mixed_sum(word: Tree, index: Tree) -> Tree:
  """Ends `fingerprint`, for arrays of JAX and of NumPy alike."""
  mixed = word + index * np.uint32(0x9E3779B9)
  mixed = (mixed ^ (mixed >> 16)) * np.uint32(0x85EBCA6B)
  mixed = (mixed ^ (mixed >> 13)) * np.uint32(0xC2B2AE35)
  return (mixed ^ (mixed >> 16)).sum(dtype=np.uint32)


def _fingerprint(x: Any) -> Any:
  """The fingerprint of a leaf, computed where that is fastest."""
  if not _is_on_host(x) or x.dtype.itemsize > 4:  # 64 bits are for JAX to say what of
    return _jitted_fingerprint(x)
  words = np.asarray(x, order='C').reshape(-1).view(_WORDS[x.dtype.itemsize])
  total = 0
  for begin in range(0, words.size, _PIECE):
    word = words[begin : begin + _PIECE].astype(np.uint32)
    index = np.arange(word.size, dtype=np.uint32) + np.uint32(begin % 2**32)
    total += int(_mixed_sum(word, index))
  return total % 2**32


def _is_on_host(x: Any) -> bool:
  """Says whether NumPy reads an array without a copy, or a copy that is small."""
  if not isinstance(x, jax.Array):
    return isinstance(x, np.ndarray)
  if not x.is_fully_addressable:  # another process's part cannot be read here
    return False
  return x.size <= _SMALL or [device.platform for device in x.devices()] == ['cpu']


def describe_leaves(tree: Tree, values: bool) -> Descriptions:
  """Returns path -> [dtype, shape] of every leaf, with its fingerprint if `values`."""
  leaves = {
    jax.tree_util.keystr(path, simple=True, separator='/'): leaf
    for path, leaf in jax.tree_util.tree_leaves_with_path(tree)
  }
  described = {path: [str(x.dtype), list(x.shape)] for path, x in leaves.items()}
  if values:
    # One function a leaf: the leaves of a state need not lie on the same devices.
    prints = jax.device_get({path: _fingerprint(x) for path, x in leaves.items()})
    for path, value in prints.items():
      described[path].append(int(value))
  return described


def check_same_leaves(
  where: str, name: str, saved: Descriptions, target: Tree, cast: bool = False
) -> Tree:
  """Returns an abstract item with the saved dtypes.

  With `cast` the target may have another floating type. Raises CheckpointError if the leaves differ
  in name, shape or dtype: another configuration saved them.
  """
  target_leaves = describe_leaves(target, values=False)
  saved_leaves = {leaf: description[:2] for leaf, description in saved.items()}

  def differ(leaf: str) -> bool:
    ours, theirs = target_leaves.get(leaf), saved_leaves.get(leaf)
    if not cast or ours is None or theirs is None:
      return ours != theirs
    floats = all(jnp.issubdtype(jnp.dtype(dtype), jnp.floating) for dtype in (ours[0], theirs[0]))
    return ours[1] != theirs[1] or not (floats or ours[0] == theirs[0])

  wrong = sorted(leaf for leaf in target_leaves.keys() | saved_leaves.keys() if differ(leaf))
  if wrong:
    actual, expected = (
      f'{tree[wrong[0]][0]} {tuple(tree[wrong[0]][1])}' if wrong[0] in tree else 'no such leaf'
      for tree in (saved_leaves, target_leaves)
    )
    raise CheckpointError(
      f'the checkpoint {where} does not fit this config: leaf {name}/{wrong[0]} is {actual} in the'
      f' checkpoint, expected {expected} ({len(wrong)} leaves of {name} differ); use the config it'
      ' was trained with, or another work directory'
    )
  types = [saved_leaves[leaf][0] for leaf in target_leaves]
  leaves, structure = jax.tree.flatten(target)
  return jax.tree.unflatten(structure, list(map(_typed, leaves, types)))


def _typed(leaf: Tree, dtype: str) -> jax.ShapeDtypeStruct:
  return jax.ShapeDtypeStruct(leaf.shape, dtype, sharding=getattr(leaf, 'sharding', None))


def check_same_values(name: str, saved: Descriptions, tree: Tree) -> None:
  """Compares the fingerprints of leaves with those saved. Raises Damaged if one differs."""
  read_now = describe_leaves(tree, values=True)
  wrong = sorted(leaf for leaf in read_now if read_now[leaf] != saved[leaf])
  if wrong:
    raise Damaged(
      f'leaf {name}/{wrong[0]} has fingerprint {read_now[wrong[0]][2]:#010x}, expected'
      f' {saved[wrong[0]][2]:#010x} ({len(wrong)} leaves of {name} differ)'
    )


def fingerprint_of(values: object, params: Tree = None) -> str:
  """Returns the fingerprint of JSON values and weights: 16 hexadecimal digits of a SHA-256.

  Weights are rounded to bfloat16, so that a run and a file exported from it have the same
  fingerprint.
  """
  digest = hashlib.sha256(json.dumps(values, sort_keys=True).encode())
  for name, leaf in sorted(named_leaves(params or {}).items()):
    rounded = np.asarray(leaf).astype(jnp.bfloat16)
    digest.update(f'{name} {rounded.shape}'.encode() + rounded.tobytes())
  return digest.hexdigest()[:16]


def leaf_bytes(description: Sequence[Any]) -> int:
  """Returns the bytes of a leaf from its dtype and shape."""
  return math.prod(description[1]) * jnp.dtype(description[0]).itemsize


_jitted_fingerprint = jax.jit(fingerprint)
