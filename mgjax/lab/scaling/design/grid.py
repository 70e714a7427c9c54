"""A grid of runs, budgets by sizes, as configurations to train (Movie Gen §3.6)."""

import dataclasses
import itertools
import math
from collections.abc import Mapping, Sequence
from typing import Annotated

import numpy as np
from ml_collections import ConfigDict

from mgjax.core.configuration.keys import JSON, Fields
from mgjax.core.errors import ConfigError
from mgjax.core.settings import Checked, Count, Fraction, Positive, Range, check, fields_of, unpack
from mgjax.lab.planning.step_spec import FlowRun
from mgjax.lab.planning.workload import Workload, count_flops, make_workload
from mgjax.lab.scaling.design.ladder import Rung, rung
from mgjax.lab.scaling.law import FLOPS, Above0

_FEWEST_STEPS = 20  # of which a learning rate can still rise and fall
_FURTHEST = 1.6  # size of a run over the one asked for: heads and layers are whole


@dataclasses.dataclass(frozen=True)
class Rule(Checked):
  """A number that goes with size and data, such as a learning rate or a batch.

    value (N / N_0)^by_size (D / D_0)^by_tokens

  Learning rate and batch must rise and fall together with size and data, or the law is that of
  badly trained models (Yin et al., 2024); their exponents are not in public sources.
  """

  value: Above0
  by_size: float = 0.0
  by_tokens: float = 0.0


@dataclasses.dataclass(frozen=True)
class GridSettings:
  """`config.grid`: which runs a scaling law is fitted to.

  N is counted by work: the operations of a token forward and backward over 6, so that C = 6 N D
  holds with attention in it. D are tokens.

  Attributes:
    budgets: C of each, FLOPs.
    sizes: of each budget.
    decades: between the smallest and the largest of these; parabolas are biased beyond 1.2.
    centre: the middle size by budget, as 'value' at 'compute' and the exponent 'by_compute': what
      is expected to be best.
    heads: the sizes of every budget instead, as rungs of the ladder.
    head_dim: width of a head, of which widths are multiples.
    depth: layers of all sizes; 0 for the ladder's, of which small models have too few for steps
      from one to the next.
    learning_rate: rule.
    batch: rule, in rows.
    reference: N_0, 'size', and D_0, 'tokens', of the rules.
    rates: factors on the learning rate; several are a search for the best.
    seeds: of the middle size; the other sizes have the first.
    warmup: share of the steps.
    validations: of a run, evenly spread.
  """

  budgets: tuple[Above0, ...]
  learning_rate: Mapping[str, float]
  batch: Mapping[str, float]
  reference: Mapping[str, float]
  sizes: Positive = 5
  decades: Annotated[float, Range(least=0)] = 1.0
  centre: Mapping[str, float] = dataclasses.field(default_factory=dict)
  heads: tuple[Positive, ...] = ()
  head_dim: Positive = 128
  depth: Count = 0
  rates: tuple[Above0, ...] = (1.0,)
  seeds: tuple[Count, ...] = (0,)
  warmup: Fraction = 0.05
  validations: Positive = 8

  def __post_init__(self):
    check(self)
    expected = {'reference': {'size', 'tokens'}}
    if not self.heads:
      expected['centre'] = {'value', 'compute', 'by_compute'}
    for name, keys in expected.items():
      if set(configured := getattr(self, name)) != keys:
        raise ConfigError(f'grid.{name} has {sorted(configured)}; expected {sorted(keys)}')
    if not self.budgets or not self.seeds or not self.rates:
      raise ConfigError('grid.budgets, grid.seeds and grid.rates: expected one of each at least')

  def rule(self, name: str, size: float, tokens: float) -> float:
    """Returns what the rule `name` says of N and D."""
    rule = unpack(Rule, dict(getattr(self, name)), f'grid.{name}')
    return (
      rule.value
      * (size / self.reference['size']) ** rule.by_size
      * (tokens / self.reference['tokens']) ** rule.by_tokens
    )

  def rung(self, heads: int) -> Rung:
    """Returns the sizes of so many heads."""
    sizes = rung(heads, self.head_dim)
    return dataclasses.replace(sizes, depth=self.depth) if self.depth else sizes

  def targets(self, compute: float) -> list[float]:
    """Returns the sizes N that a budget asks for, the smallest first."""
    middle = self.centre['value'] * (compute / self.centre['compute']) ** self.centre['by_compute']
    half = self.decades / 2
    return [float(middle * 10**x) for x in np.linspace(-half, half, self.sizes)]


@dataclasses.dataclass(frozen=True)
class Point:
  """One run of a grid, but for its seed.

  Attributes:
    recipe: name in `config.recipes`.
    budget: C that it was planned for.
    size: N by work.
    tokens: D, read by all its steps.
    flops: of all its steps.
    learning_rate: at its highest.
    config: what is trained.
  """

  recipe: str
  budget: float
  rung: Rung
  parameters: int
  size: float
  tokens: int
  flops: float
  learning_rate: float
  rows: int
  steps: int
  seeds: tuple[int, ...]
  config: ConfigDict

  @property
  def name(self) -> str:
    """Names its folder."""
    numbers = f'{self.budget:.4g}_{self.rung.name}_r{self.learning_rate:.3g}'
    return f'{self.recipe}_{numbers.replace("+", "")}'

  def about(self) -> JSON:
    """Returns what its row in the records says beside losses, as JSON can hold it."""
    return {
      'recipe': self.recipe,
      'budget': self.budget,
      'parameters': self.parameters,
      'size': self.size,
      'tokens': self.tokens,
      'flops': self.flops,
      'flops_6nd': FLOPS * self.parameters * self.tokens,
      'dim': self.rung.dim,
      'depth': self.rung.depth,
      'learning_rate': self.learning_rate,
      'rows': self.rows,
    }


def make_grid(fields: Fields) -> list[Point]:
  """Returns the runs of a grid, the smallest budget first.

  `fields` are `grid`, see `GridSettings`, and `recipes`, name -> configuration of a flow model with
  one bucket; the grid sets its sizes, rows, rates and steps. The FFN of a recipe with two matrices
  is 3/2 as wide, so that a rung is as many operations in all. Raises ConfigError if fields are
  missing, unknown or do not go together, or a run would have no steps.
  """
  if missing := {'grid', 'recipes'} - set(fields):
    raise ConfigError(f'the configuration lacks {", ".join(sorted(missing))}; see configs/scaling/')
  settings = unpack(GridSettings, fields_of(fields, 'grid'), 'grid')
  points: list[Point] = []
  for recipe, base in fields['recipes'].items():
    if (count := len(base['buckets'])) != 1:
      raise ConfigError(
        f'recipe {recipe!r} has {count} buckets; expected one, or tokens have no size'
      )
    known: dict[int, float] = {}
    works: dict[int, Workload] = {}
    for budget in sorted(settings.budgets):
      taken = list(settings.heads)
      for target in () if settings.heads else settings.targets(budget):
        taken.append(_nearest(target, base, settings, known, taken))
      for heads in taken:
        if heads not in works:
          works[heads] = make_workload(FlowRun.of(_counted(base, settings.rung(heads))))
      for index, factor in itertools.product(range(len(taken)), settings.rates):
        seeds = settings.seeds if index == len(taken) // 2 else settings.seeds[:1]
        points.append(
          _make_point(recipe, base, settings, budget, works[taken[index]], factor, seeds)
        )
  return sorted(points, key=lambda point: point.budget)


def _sized(base: Fields, sizes: Rung) -> ConfigDict:
  config = ConfigDict(base)
  wider = 1 if config.model.get('feed_forward', 'swiglu') == 'swiglu' else 1.5
  fields = dataclasses.asdict(sizes) | {'mlp_dim': round(wider * sizes.mlp_dim)}
  unroll = sizes.depth if config.model.get('unroll', 1) > 1 else 1
  with config.unlocked():
    config.model.update(fields, unroll=unroll)
  return config


def _counted(base: Fields, sizes: Rung) -> ConfigDict:
  """The same as one layer in a loop, which has the same parameters and is traced sooner."""
  config = _sized(base, sizes)
  config.model.unroll = 1
  return config


def _nearest(
  target: float,
  base: Fields,
  settings: GridSettings,
  known: dict[int, float],
  taken: Sequence[int],
) -> int:
  """Returns the heads of the size nearest to a target, in logarithms, above those in `taken`."""

  def size(heads: int) -> float:
    if heads not in known:
      flops, tokens = count_flops(FlowRun.of(_counted(base, settings.rung(heads))))
      known[heads] = flops.training / (FLOPS * tokens)
    return known[heads]

  heads = 1
  while size(2 * heads) < target:
    heads *= 2
  low = heads
  high = 2 * heads
  while high - low > 1:
    middle = (low + high) // 2
    low, high = (middle, high) if size(middle) < target else (low, middle)
  best = min((low, high), key=lambda count: abs(math.log(size(count) / target)))
  best = max(best, *(heads + 1 for heads in taken)) if taken else best
  if not 1 / _FURTHEST < size(best) / target < _FURTHEST:
    raise ConfigError(
      f'the free size nearest to {target:.3g} is {size(best):.3g}, {best} heads; take fewer or '
      'larger sizes, more grid.decades or a smaller grid.head_dim'
    )
  return best


def _make_point(
  recipe: str,
  base: Fields,
  settings: GridSettings,
  budget: float,
  work: Workload,
  factor: float,
  seeds: Sequence[int],
) -> Point:
  sizes = settings.rung(work.heads)
  size = work.flops.training / (FLOPS * work.tokens)
  planned = budget / (FLOPS * size)
  rows = max(1, round(settings.rule('batch', size, planned)))
  rate = settings.rule('learning_rate', size, planned) * factor
  steps = round(budget / (work.flops.training * rows))
  if steps < _FEWEST_STEPS:
    raise ConfigError(
      f'{recipe}: {budget:.3g} FLOPs are {steps} steps of {rows} rows at {size:.3g} parameters; '
      f'expected {_FEWEST_STEPS} at least: take smaller grid.batch or sizes, or more compute'
    )
  config = _sized(base, sizes)
  config.buckets[work.bucket].batch_size = rows
  config.optimizer.learning_rate = rate
  config.optimizer.warmup = round(settings.warmup * steps)
  every = math.ceil(steps / settings.validations)
  config.train.update(steps=steps, evaluate_every=every, save_every=every)
  trained = sum(parameter.size for parameter in work.parameters if parameter.trained)
  return Point(
    recipe,
    budget,
    sizes,
    trained,
    size,
    steps * rows * work.tokens,
    float(steps * rows * work.flops.training),
    rate,
    rows,
    steps,
    tuple(seeds),
    config,
  )
