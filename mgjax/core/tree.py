"""Named views of parameter trees."""

import math
from collections.abc import Iterable, Mapping

import jax

from mgjax.core.typing import Tree


def named_leaves(tree: Tree) -> dict[str, Tree]:
  """Maps 'backbone/layers/feed_forward/up/kernel' to its leaf, in tree order."""
  leaves, _ = jax.tree_util.tree_flatten_with_path(tree)
  return {'/'.join(_key(entry) for entry in path): leaf for path, leaf in leaves}


def subtrees(names: Iterable[str]) -> list[str]:
  """Lists 'backbone', 'backbone/layers', ...: the subtrees that contain leaves of these names."""
  paths = [name.split('/') for name in names]
  return list(dict.fromkeys('/'.join(path[:end]) for path in paths for end in range(1, len(path))))


def within(name: str, subtree: str) -> bool:
  """Returns whether a leaf is a subtree or lies in it; every leaf lies in ''."""
  return not subtree or name == subtree or name.startswith(f'{subtree}/')


def nest(leaves: Mapping[str, Tree]) -> Tree:
  """Makes nested dictionaries of named leaves."""
  tree: Tree = {}
  for name, leaf in leaves.items():
    *path, last = name.split('/')
    node = tree
    for key in path:
      node = node.setdefault(key, {})
    node[last] = leaf
  return tree


def count_parameters(tree: Tree) -> int:
  """Counts the numbers in a tree of arrays or of shapes."""
  return sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(tree))


def parameter_table(tree: Tree) -> str:
  """Formats the number of parameters of each group ('a/b/c' of leaf names) and its share."""
  counts: dict[str, int] = {}
  for name, leaf in named_leaves(tree).items():
    group = '/'.join(name.split('/')[:3])
    counts[group] = counts.get(group, 0) + math.prod(leaf.shape)
  total = sum(counts.values())
  width = max(map(len, [*counts, 'total']))
  rows = [f'{name:{width}}  {count:>16,}  {count / total:6.1%}' for name, count in counts.items()]
  return '\n'.join([*rows, f'{"total":{width}}  {total:>16,}  {1:6.1%}'])


def _key(entry) -> str:
  for attribute in ('key', 'name', 'idx'):
    if hasattr(entry, attribute):
      return str(getattr(entry, attribute))
  return str(entry)
