r"""Low-rank adapters of kernels (LoRA, Hu et al. 2021, arXiv 2106.09685), as functions of trees.

  y = x (W + (alpha / r) A B),    W (i, o) frozen,  A (i, r) random,  B (r, o) zero at the start

Not in the Movie Gen paper. A tree of adapters has {'lora_a': A, 'lora_b': B} in place of each
adapted kernel. Those of a stack have the axis of layers, and A of a convolution the axes of the
window. `attach` puts adapters beside the kernels, where `nn.linear.products` computes x W + (x A)
B, a layer at a time and without the gradient of W. `merge` adds them to the kernels.

A tree that was read from a file may also have {'difference': d} in place of a parameter p, of any
kind: the model is changed into one with p + d. `shift` adds it, and `merge` does.
"""

import dataclasses
import fnmatch
import zlib
from collections.abc import Callable, Iterable, Mapping, Sequence

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from mgjax.core.configuration.keys import Fields, did_you_mean
from mgjax.core.errors import ConfigError
from mgjax.core.precision import BASE, DIFFERENCE, LORA_A, LORA_B, PARAMETER, stored_type
from mgjax.core.settings import Count, Fraction, Magnitude, check, unpack
from mgjax.core.tree import count_parameters, named_leaves, nest, subtrees, within
from mgjax.core.typing import Array, Key, Tree
from mgjax.nn.quantize import dequantised
from mgjax.parallel.shard import named_boxes

_KERNEL = '/kernel'  # suffix of kernels' names
LAYERS = 'layers'  # axes; the first axis of a stack has this name too
_RANK = 'rank'


@dataclasses.dataclass(frozen=True)
class Lora:
  """`config.lora`: which kernels get adapters, which are trained instead of the parameters.

  Attributes:
    rank: r; 0 trains all parameters, without adapters.
    alpha: adapters are scaled by alpha / r; 0 means r.
    targets: patterns of kernels' names, as in `optimizer.rates`: ('*attention*',), or ('*',).
    dropout: probability that the adapters do not see an input of a kernel in a step.
    weights: the type in which frozen kernels of the backbone are stored (`core.precision.STORED`),
      as 'int8'; '' for the type that they are saved in.

  Raises:
    ConfigError: a value is out of its range, or dropout is 1.
  """

  rank: Count = 0
  alpha: Magnitude = 0.0
  targets: tuple[str, ...] = ('*',)
  dropout: Fraction = 0.0
  weights: str = ''

  def __post_init__(self):
    check(self)
    if self.weights:
      stored_type(self.weights)
    if self.dropout == 1:
      raise ConfigError('lora.dropout = 1; expected less: adapters would see nothing')

  @property
  def scale(self) -> float:
    """alpha / r."""
    return (self.alpha or self.rank) / self.rank


def lora_settings(config: Fields) -> Lora:
  """Reads `config.lora` from a plain dictionary; older runs do not have it."""
  return unpack(Lora, config.get('lora') or {}, 'lora')


def scale_of(config: Fields, adapters: Tree) -> float:
  """Returns alpha / r of adapters that were trained with a configuration.

  Raises ConfigError if the adapters have another rank than the configuration.
  """
  settings = lora_settings(config)
  ranks = sorted({b.shape[-2] for _, b in pairs(adapters).values()})
  if ranks != [settings.rank]:
    raise ConfigError(f'lora.rank = {settings.rank}, and the adapters are of rank {ranks}')
  return settings.scale


def reached(targets: Sequence[str], names: Sequence[str]) -> dict[str, list[str]]:
  """Assigns each kernel among `names` to the first pattern that matches it.

  Raises ConfigError if a pattern matches no kernel that is still unassigned.
  """
  unassigned = [name for name in names if name.endswith(_KERNEL)]
  kernels_of_pattern = {}
  for pattern in targets:
    matches = fnmatch.filter(unassigned, pattern)
    if not matches:
      known = [*unassigned, *(f'{name}/*' for name in subtrees(unassigned))]
      hint = did_you_mean(pattern, known).partition('; ')[2]
      remaining = ' left' if kernels_of_pattern else ''
      raise ConfigError(
        f'lora.targets: {pattern!r} matches none of the {len(unassigned)} kernels{remaining}; '
        f'{hint or "--dry_run lists their groups"}'
      )
    kernels_of_pattern[pattern] = matches
    unassigned = [name for name in unassigned if name not in matches]
  return kernels_of_pattern


def describe(lora: Lora, boxed: Tree) -> list[str]:
  """Lists the number of kernels that each pattern matches, and the parameters of their adapters.

  Raises ConfigError as `reached`.
  """
  shapes = named_leaves(nn.unbox(boxed))
  kernels_of_pattern = reached(lora.targets, list(shapes))
  kernels = [name for name in shapes if name.endswith(_KERNEL)]
  adapters = count_parameters(jax.eval_shape(lambda: init(jax.random.key(0), lora, boxed)))
  num_adapted = sum(map(len, kernels_of_pattern.values()))
  lines = [
    f'adapters of rank {lora.rank} for {num_adapted} of {len(kernels)} kernels: {adapters:,} '
    f'parameters train, of {count_parameters(shapes):,}'
  ]
  return [
    *lines,
    *(f'{pattern}: {len(names)} kernels' for pattern, names in kernels_of_pattern.items()),
  ]


def init(key: Key, lora: Lora, boxed: Tree) -> Tree:
  """Initialises adapters with logical axes: A ~ N(0, 1 / r) in the kernel's layout, B = 0.

  `boxed` are the parameters of the model, or their shapes, with their axes. Raises ConfigError as
  `reached`.
  """
  boxes = named_boxes(boxed)
  adapters = {}
  for names in reached(lora.targets, list(boxes)).values():
    for name in names:
      (*front, inputs, outputs) = boxes[name].value.shape
      axes = boxes[name].names
      stacked = axes[0] == LAYERS
      kernel_key = jax.random.fold_in(key, zlib.crc32(name.encode()))
      a = jax.random.normal(kernel_key, (*front, inputs, lora.rank), PARAMETER) * lora.rank**-0.5
      b = jnp.zeros((*front[:stacked], lora.rank, outputs), PARAMETER)
      adapters[f'{name}/{LORA_A}'] = nn.LogicallyPartitioned(a, (*axes[:-1], _RANK))
      adapters[f'{name}/{LORA_B}'] = nn.LogicallyPartitioned(b, (*axes[:stacked], _RANK, axes[-1]))
  return nest(adapters)


def attach(
  adapters: Tree, base: Tree, scale: float = 1.0, dropout: float = 0.0, key: Key | None = None
) -> Tree:
  """Attaches adapters, scaled by `scale`, to the parameters `base`, which have the differences.

  With a `key`, the adapters of each kernel do not see an input with probability `dropout`, the same
  for all rows of a batch; the other inputs are scaled up. Raises ConfigError if an adapted kernel
  does not exist.
  """
  leaves = named_leaves(base)
  kernels = pairs(adapters)
  for name, (a, b) in kernels.items():
    kernel_leaves = [leaf for leaf in leaves if within(leaf, name)]
    if not kernel_leaves:
      raise ConfigError(f'the adapters change {name}, which the model does not have')
    for leaf in kernel_leaves:
      leaves[f'{name}/{BASE}{leaf.removeprefix(name)}'] = leaves.pop(leaf)
    if dropout and key is not None:
      own_key = jax.random.fold_in(key, zlib.crc32(name.encode()))
      keep_mask = jax.random.bernoulli(own_key, 1 - dropout, (*a.shape[:-1], 1))
      a = jnp.where(keep_mask, a / (1 - dropout), 0)
    leaves[f'{name}/{LORA_A}'] = a * scale
    leaves[f'{name}/{LORA_B}'] = b
  return nest(leaves)


def make_adapt(settings: Lora) -> Callable[[Tree, Tree, Key | None], Tree]:
  """Makes `adapt(adapters, base, key)` of a training step (`training/spec.py`)."""

  def adapt(adapters: Tree, base: Tree, key: Key | None = None) -> Tree:
    return attach(adapters, base, settings.scale, settings.dropout, key)

  return adapt


def shift(adapters: Tree, base: Tree, scale: float = 1.0) -> Tree:
  """Returns parameters as `base`, with p + scale d in place of each p of which d is a difference.

  Quantised kernels are dequantised first if there are any differences.
  """
  changes = differences_in(adapters)
  if not changes:
    return base
  leaves = named_leaves(dequantised(base))
  for name, change in changes.items():
    leaves[name] = (leaves[name] + scale * change).astype(leaves[name].dtype)
  return nest(leaves)


def merge(adapters: Tree, base: Tree, scale: float = 1.0) -> Tree:
  """Returns parameters as `base`, with W + scale A B in place of each adapted kernel W.

  Differences are added as by `shift`. Quantised kernels are dequantised first, whether they are
  adapted or not.
  """
  leaves = named_leaves(shift(adapters, dequantised(base), scale))
  for name, (a, b) in pairs(adapters).items():
    leaves[name] = (leaves[name] + scale * product(a, b)).astype(leaves[name].dtype)
  return nest(leaves)


def product(a: Array | np.ndarray, b: Array | np.ndarray) -> Array:
  """Returns A B in the shape of the kernel, for each layer if B has an axis of layers."""
  rows = a.reshape(*b.shape[:-2], -1, b.shape[-2]).astype(jnp.float32)
  change = jnp.matmul(rows, b.astype(jnp.float32), precision=jax.lax.Precision.HIGHEST)
  return change.reshape(*a.shape[:-1], b.shape[-1])


def joined(several: Sequence[tuple[Tree, float]]) -> Tree:
  """Merges several weighted trees of adapters into one tree with the same total effect.

  Raises ConfigError if the effect is not finite.
  """
  pairs_of_kernel: dict[str, list[tuple[Tree, Tree]]] = {}
  changes: dict[str, Tree] = {}
  for adapters, weight in several:
    with np.errstate(over='ignore'):
      for name, (a, b) in pairs(adapters).items():
        pairs_of_kernel.setdefault(name, []).append((a * weight, b))
      for name, change in differences_in(adapters).items():
        changes[name] = changes.get(name, 0) + weight * change
  finite = {name: is_finite_change(weighted) for name, weighted in pairs_of_kernel.items()}
  finite |= {name: bool(np.isfinite(change).all()) for name, change in changes.items()}
  for name in (name for name, is_finite in finite.items() if not is_finite):
    weights = ', '.join(f'{weight:g}' for _, weight in several)
    raise ConfigError(
      f'adapters with the weights {weights} change {name} by no finite number; expected smaller '
      'weights, as in --lora=style:0.8'
    )
  leaves = {f'{name}/{DIFFERENCE}': change for name, change in changes.items()}
  for name, weighted_pairs in pairs_of_kernel.items():
    first, second = zip(*weighted_pairs, strict=True)
    leaves[f'{name}/{LORA_A}'] = jnp.concatenate(first, axis=-1)
    leaves[f'{name}/{LORA_B}'] = jnp.concatenate(second, axis=-2)
  return nest(leaves)


def is_finite_change(several: Sequence[tuple[Tree, Tree]]) -> bool:
  """Returns whether the sum of A B is finite in float32, with room for the kernel that it changes.

  A B is only computed if the bound |A B| <= r max |A| max |B| is not enough.
  """
  most = sum(b.shape[-2] * _largest(a) * _largest(b) for a, b in several)
  largest = float(jnp.finfo(jnp.float32).max) / 2
  return most <= largest or bool(np.all(abs(sum(product(a, b) for a, b in several)) <= largest))


def _largest(array: object) -> float:
  array = np.asarray(array)
  return float(np.maximum(array.max(), -array.min()))  # NaN if one is


def check_fits(adapters: Tree, base: Tree, what: str) -> None:
  """Raises ConfigError, which names the kernels, if adapters do not fit parameters."""
  kernels = shapes_of(base)
  adapted = pairs(adapters)
  unknown = sorted(name for name in adapted if name not in kernels)
  misshapen = [
    f'{name} {kernels[name]}: here A {a.shape}, B {b.shape}'
    for name, (a, b) in adapted.items()
    if name in kernels and (*a.shape[:-1], b.shape[-1]) != kernels[name]
  ]
  if unknown or misshapen:
    message = (
      f'{what} is of another model: {len(unknown)} of its {len(adapted)} kernels are not there'
    )
    if unknown:
      message += f': {", ".join(unknown[:5])}' + (' ...' if len(unknown) > 5 else '')
    if misshapen:
      message += f'; of other shapes: {"; ".join(misshapen[:5])}'
    raise ConfigError(message)


def shapes_of(base: Tree) -> dict[str, tuple[int, ...]]:
  """Returns the shapes of parameters, or of shapes, by name; for quantised kernels those of W."""
  shapes = jax.eval_shape(dequantised, base)  # nothing is computed
  return {name: tuple(leaf.shape) for name, leaf in named_leaves(shapes).items()}


def is_adapters(names: Iterable[str]) -> bool:
  """Returns whether there are adapters among leaves of these names."""
  return any(name.endswith(f'/{LORA_A}') for name in names)


def differences_in(adapters: Tree) -> dict[str, Tree]:
  """Returns the difference of every parameter that has one, by its name."""
  end = f'/{DIFFERENCE}'
  leaves = named_leaves(adapters)
  return {name.removesuffix(end): leaf for name, leaf in leaves.items() if name.endswith(end)}


def pairs(adapters: Tree) -> Mapping[str, tuple[Tree, Tree]]:
  """Returns the (A, B) of every kernel, by its name."""
  leaves = named_leaves(adapters)
  names = [name.removesuffix(f'/{LORA_A}') for name in leaves if name.endswith(f'/{LORA_A}')]
  return {name: (leaves[f'{name}/{LORA_A}'], leaves[f'{name}/{LORA_B}']) for name in names}
