"""Rates by name: which parameters train, which are frozen, which learn at another rate.

`optimizer.rates` of a configuration is a list of (pattern, factor). A pattern is compared with
whole names, such as 'backbone/layers/self_attention/query/kernel': `*` is any text, slashes too,
`?` one character, `[ab]` one of several. The first pattern that matches decides; a parameter that
none matches has factor 1, and one with factor 0 is frozen. The layers of a scanned stack are one
array, so a pattern takes all of them or none.

Trees of gradients, moments and updates have an `optax.MaskedNode`, which has no leaves, where a
parameter is frozen: nothing is computed, stored or sent for it.
"""

import fnmatch
from collections.abc import Sequence

import jax
import optax

from mgjax.core.configuration.keys import did_you_mean
from mgjax.core.errors import ConfigError
from mgjax.core.tree import count_parameters, named_leaves, subtrees
from mgjax.core.typing import Tree

Rates = Sequence[tuple[str, float]]


def factor_of(name: str, rates: Rates) -> float:
  """Returns what the learning rate of a parameter is multiplied with."""
  return next((factor for pattern, factor in rates if fnmatch.fnmatchcase(name, pattern)), 1.0)


def mask_frozen(tree: Tree, rates: Rates) -> Tree:
  """Returns a tree with the names of parameters without those that are frozen."""
  return jax.tree_util.tree_map_with_path(
    lambda path, leaf: leaf if factor_of(_name(path), rates) else optax.MaskedNode(), tree
  )


def scale_by_rates(updates: Tree, rates: Rates) -> Tree:
  """Multiplies every update with the factor of its parameter."""

  def scale(path, leaf):
    factor = factor_of(_name(path), rates)
    return leaf if factor == 1 else leaf * factor

  return jax.tree_util.tree_map_with_path(scale, updates)


def mask_like(tree: Tree, masked: Tree) -> Tree:
  """Returns those leaves of a whole tree that a masked one has."""
  return jax.tree.map(lambda m, leaf: m if is_masked(m) else leaf, masked, tree, is_leaf=is_masked)


def fill(masked: Tree, tree: Tree) -> Tree:
  """Returns a masked tree with what it lacks from a whole one."""
  return jax.tree.map(lambda m, leaf: leaf if is_masked(m) else m, masked, tree, is_leaf=is_masked)


def is_masked(node: Tree) -> bool:
  """Says whether a node of a tree stands for a frozen parameter."""
  return isinstance(node, optax.MaskedNode)


def describe_rates(rates: Rates, params: Tree, field: str = 'optimizer.rates') -> list[str]:
  """Checks the rates of a configuration's `field` against parameters, and describes them.

  Returns how many parameters train, and for every pattern how many it decides about; nothing
  without rates. Raises ConfigError if a pattern decides about no parameter, or all are frozen.
  """
  undecided = named_leaves(params)
  lines = []
  training = 0
  everything, names = count_parameters(undecided), list(undecided)
  for pattern, factor in (*rates, ('*', 1.0)):
    taken = {name: leaf for name, leaf in undecided.items() if fnmatch.fnmatchcase(name, pattern)}
    own = len(lines) < len(rates)
    if own and not taken:
      raise ConfigError(f'{field}: {_unmatched(pattern, names)}')
    undecided = {name: leaf for name, leaf in undecided.items() if name not in taken}
    count = count_parameters(taken)
    training += count if factor else 0
    rate = f'at {factor:g} of the learning rate' if factor else 'frozen'
    rate = 'at the full learning rate' if factor == 1 else rate
    lines.append(f'{pattern if own else "all others"}: {count:,} in {len(taken)} leaves, {rate}')
  if not training:
    raise ConfigError(f'{field} freezes all {everything:,} parameters; expected some that train')
  return [f'{training:,} of {everything:,} parameters train', *lines] if rates else []


def _unmatched(pattern: str, names: Sequence[str]) -> str:
  if fnmatch.filter(names, pattern):
    return f'all that {pattern!r} matches is decided by patterns before it; put it before them'
  known = [*names, *(f'{name}/*' for name in subtrees(names))]
  hint = did_you_mean(pattern, known).partition('; ')[2]
  return f'{pattern!r} matches no parameter; {hint or "--dry_run lists their groups"}'


def _name(path) -> str:
  return jax.tree_util.keystr(path, simple=True, separator='/')
