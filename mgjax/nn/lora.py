r"""Low-rank adapters of kernels (LoRA, Hu et al. 2021, arXiv 2106.09685), as functions of trees.

  y = x (W + (alpha / r) A B),    W (i, o) frozen,  A (i, r) random,  B (r, o) zero at the start

Not in the report. A tree of adapters has at the name of every kernel that it changes the leaves
{'lora_a': A, 'lora_b': B}, of a stack of layers with the layers' axis, of a convolution A with the
axes of the window. `attach` puts them beside the kernels, where `nn.linear.products` computes
x W + (x A) B, a layer at a time and without the gradient of W; `merge` adds them to the kernels.
"""

import dataclasses
import fnmatch
import zlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from mgjax.core.configuration.keys import did_you_mean
from mgjax.core.errors import ConfigError
from mgjax.core.precision import BASE, LORA_A, LORA_B, PARAMETER, stored_type
from mgjax.core.settings import Count, Fraction, Magnitude, check, unpack
from mgjax.core.tree import count_parameters, named_leaves, nest, subtrees, within
from mgjax.core.typing import Array, Key, Tree
from mgjax.nn.quantize import dequantised
from mgjax.parallel.shard import named_boxes

_KERNEL = '/kernel'  # how the names of kernels end
LAYERS = 'layers'  # axes; a stack has the first one's name too
_RANK = 'rank'


@dataclasses.dataclass(frozen=True)
class Lora:
  """`config.lora`: adapters of which kernels train, in place of the parameters themselves.

  Attributes:
    rank: r; 0 trains all parameters, without adapters.
    alpha: the adapters count alpha / r times; 0 is r.
    targets: patterns of kernels' names, as in `optimizer.rates`: ('*attention*',), or ('*',).
    dropout: probability that the adapters do not see an input of a kernel in a step.
    weights: the type in which the frozen kernels of the backbone lie (`core.precision.STORED`), as
      'int8'; '' for the one that they are saved in.

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


def lora_settings(config: Mapping[str, Any]) -> Lora:
  """Reads `config.lora`, of a plain dictionary; a run of before it was a field has none."""
  return unpack(Lora, config.get('lora') or {}, 'lora')


def scale_of(config: Mapping[str, Any], adapters: Tree) -> float:
  """Returns alpha / r of adapters that a configuration says to train.

  Raises ConfigError if they are not of its rank: alpha / r would be another one than in training.
  """
  settings = lora_settings(config)
  ranks = sorted({b.shape[-2] for _, b in pairs(adapters).values()})
  if ranks != [settings.rank]:
    raise ConfigError(f'lora.rank = {settings.rank}, and the adapters are of rank {ranks}')
  return settings.scale


def reached(targets: Sequence[str], names: Sequence[str]) -> dict[str, list[str]]:
  """Returns for each pattern the kernels among `names` that it is the first to match.

  Raises ConfigError if a pattern matches no kernel that none before it does.
  """
  left = [name for name in names if name.endswith(_KERNEL)]
  found = {}
  for pattern in targets:
    found[pattern] = fnmatch.filter(left, pattern)
    if not found[pattern]:
      known = [*left, *(f'{name}/*' for name in subtrees(left))]
      hint = did_you_mean(pattern, known).partition('; ')[2]
      raise ConfigError(
        f'lora.targets: {pattern!r} matches none of the {len(left)} kernels'
        f'{" left" * bool(len(found) - 1)}; {hint or "--dry_run lists their groups"}'
      )
    left = [name for name in left if name not in found[pattern]]
  return found


def describe(lora: Lora, boxed: Tree) -> list[str]:
  """Says how many kernels each pattern reaches, and how many numbers their adapters have.

  Raises ConfigError as `reached`.
  """
  shapes = named_leaves(nn.unbox(boxed))
  found = reached(lora.targets, list(shapes))
  kernels = [name for name in shapes if name.endswith(_KERNEL)]
  adapters = count_parameters(jax.eval_shape(lambda: init(jax.random.key(0), lora, boxed)))
  taken = sum(map(len, found.values()))
  lines = [
    f'adapters of rank {lora.rank} for {taken} of {len(kernels)} kernels: {adapters:,} parameters '
    f'train, of {count_parameters(shapes):,}'
  ]
  return [*lines, *(f'{pattern}: {len(names)} kernels' for pattern, names in found.items())]


def init(key: Key, lora: Lora, boxed: Tree) -> Tree:
  """Initialises adapters with logical axes: A ~ N(0, 1 / r) as the kernel lies, B = 0.

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
      own = jax.random.fold_in(key, zlib.crc32(name.encode()))
      a = jax.random.normal(own, (*front, inputs, lora.rank), PARAMETER) * lora.rank**-0.5
      b = jnp.zeros((*front[:stacked], lora.rank, outputs), PARAMETER)
      adapters[f'{name}/{LORA_A}'] = nn.LogicallyPartitioned(a, (*axes[:-1], _RANK))
      adapters[f'{name}/{LORA_B}'] = nn.LogicallyPartitioned(b, (*axes[:stacked], _RANK, axes[-1]))
  return nest(adapters)


def attach(
  adapters: Tree, base: Tree, scale: float = 1.0, dropout: float = 0.0, key: Key | None = None
) -> Tree:
  """Returns the parameters `base` with adapters beside their kernels, counted `scale` times.

  With a `key` an input of each kernel is kept from its adapters with the probability `dropout`,
  for all rows of a batch, and those that are left count more.
  """
  found, kernels = named_leaves(base), pairs(adapters)
  for name, (a, b) in kernels.items():
    own = [each for each in found if within(each, name)]
    if not own:
      raise ConfigError(f'the adapters change {name}, which the model does not have')
    for each in own:
      found[f'{name}/{BASE}{each.removeprefix(name)}'] = found.pop(each)
    if dropout and key is not None:
      own_key = jax.random.fold_in(key, zlib.crc32(name.encode()))
      kept = jax.random.bernoulli(own_key, 1 - dropout, (*a.shape[:-1], 1))
      a = jnp.where(kept, a / (1 - dropout), 0)
    found[f'{name}/{LORA_A}'] = a * scale
    found[f'{name}/{LORA_B}'] = b
  return nest(found)


def make_adapt(settings: Lora) -> Callable[[Tree, Tree, Key | None], Tree]:
  """Makes `adapt(adapters, base, key)` of a training step (`training/spec.py`)."""

  def adapt(adapters: Tree, base: Tree, key: Key | None = None) -> Tree:
    return attach(adapters, base, settings.scale, settings.dropout, key)

  return adapt


def merge(adapters: Tree, base: Tree, scale: float = 1.0) -> Tree:
  """Returns parameters of the form of `base`, W + scale A B in place of the kernels W.

  Quantised kernels that adapters change are widened first, and so are all others.
  """
  found = named_leaves(dequantised(base))
  for name, (a, b) in pairs(adapters).items():
    found[name] = (found[name] + scale * product(a, b)).astype(found[name].dtype)
  return nest(found)


def product(a: Any, b: Any) -> Array:
  """Returns A B of the shape of the kernel, of each layer if B has an axis of layers."""
  rows = a.reshape(*b.shape[:-2], -1, b.shape[-2]).astype(jnp.float32)
  made = jnp.matmul(rows, b.astype(jnp.float32), precision=jax.lax.Precision.HIGHEST)
  return made.reshape(*a.shape[:-1], b.shape[-1])


def joined(several: Sequence[tuple[Tree, float]]) -> Tree:
  """Returns one tree of adapters that does what several do together, each so many times.
  Raises ConfigError if that is infinite.
  """
  found: dict[str, list[tuple[Any, Any]]] = {}
  for adapters, weight in several:
    for name, (a, b) in pairs(adapters).items():
      with np.errstate(over='ignore'):
        found.setdefault(name, []).append((a * weight, b))
  leaves = {}
  for name, own in found.items():
    if not is_finite_change(own):
      weights = ', '.join(f'{weight:g}' for _, weight in several)
      raise ConfigError(
        f'adapters with the weights {weights} change {name} by no finite number; expected smaller '
        'weights, as in --lora=style:0.8'
      )
    first, second = zip(*own, strict=True)
    leaves[f'{name}/{LORA_A}'] = jnp.concatenate(first, axis=-1)
    leaves[f'{name}/{LORA_B}'] = jnp.concatenate(second, axis=-2)
  return nest(leaves)


def is_finite_change(several: Sequence[tuple[Any, Any]]) -> bool:
  """Says whether the sum of A B is finite in float32, with room for the kernel that it changes.

  It multiplies only where |A B| <= r max |A| max |B| does not say so.
  """
  most = sum(b.shape[-2] * _largest(a) * _largest(b) for a, b in several)
  largest = float(jnp.finfo(jnp.float32).max) / 2
  return most <= largest or bool((abs(sum(product(a, b) for a, b in several)) <= largest).all())


def _largest(array: Any) -> float:
  found = np.asarray(array)
  return float(np.maximum(found.max(), -found.min()))  # NaN if one is


def check_fits(adapters: Tree, base: Tree, what: str) -> None:
  """Raises ConfigError, which names the kernels, where adapters do not fit parameters."""
  kernels, own = shapes_of(base), pairs(adapters)
  unknown = sorted(name for name in own if name not in kernels)
  wrong = [
    f'{name} {kernels[name]}: here A {a.shape}, B {b.shape}'
    for name, (a, b) in own.items()
    if name in kernels and (*a.shape[:-1], b.shape[-1]) != kernels[name]
  ]
  if unknown or wrong:
    raise ConfigError(
      f'{what} is of another model: {len(unknown)} of its {len(own)} kernels are not there'
      f'{": " * bool(unknown)}{", ".join(unknown[:5])}{" ..." * (len(unknown) > 5)}'
      f'{"; of other shapes: " * bool(wrong)}{"; ".join(wrong[:5])}'
    )


def shapes_of(base: Tree) -> dict[str, tuple[int, ...]]:
  """Returns the shapes of parameters, or of shapes, by name; of quantised kernels those of W."""
  whole = jax.eval_shape(dequantised, base)  # widens nothing
  return {name: tuple(leaf.shape) for name, leaf in named_leaves(whole).items()}


def is_adapters(names: Iterable[str]) -> bool:
  """Says whether there are adapters among leaves of these names."""
  return any(name.endswith(f'/{LORA_A}') for name in names)


def pairs(adapters: Tree) -> Mapping[str, tuple[Any, Any]]:
  """Returns the (A, B) of every kernel, by its name."""
  leaves = named_leaves(adapters)
  names = [name.removesuffix(f'/{LORA_A}') for name in leaves if name.endswith(f'/{LORA_A}')]
  return {name: (leaves[f'{name}/{LORA_A}'], leaves[f'{name}/{LORA_B}']) for name in names}
