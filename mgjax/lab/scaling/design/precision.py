"""How sure the exponent of a law will be, before any run is paid for."""

import dataclasses
import itertools
import math
from collections.abc import Sequence
from typing import Annotated

import numpy as np
from scipy.stats import norm

from mgjax.core.errors import ConfigError
from mgjax.core.settings import Range, arguments
from mgjax.core.typing import Float
from mgjax.lab.scaling.design.grid import Point
from mgjax.lab.scaling.law import Law
from mgjax.lab.scaling.published import HOFFMANN
from mgjax.lab.statistics.intervals import ENDS

_GOAL = 0.02
# What the audit asks of a grid: three sizes on each side of the best one, 1.2 decades of them at
# most, a decade of budgets at least, and no more than two decades of extrapolation.
_SIZES = 7
_WIDTHS = (0.9, 1.2)
_SPANS = (1.0, 1.5, 2.0)
_COUNTS = (3, 4, 5, 6)
_AT = 1e21  # FLOPs at which that law is read for a grid's largest budget
_BELOW = np.linspace(0, 2, 9)  # decades that the highest budget may lie below the one of interest


@dataclasses.dataclass(frozen=True)
class Sweep:
  """A grid of budgets (C, FLOPs) by sizes, centred on the best ones, and what it tells.

  `half_width` is that of the exponent's interval of 95%.
  """

  budgets: tuple[float, ...]
  sizes: int
  decades: float
  seeds: int
  flops: float
  half_width: float


def exponent_error(
  law: Law,
  size: Float[np.ndarray, 'r'],
  tokens: Float[np.ndarray, 'r'],
  noise: Annotated[float, Range(above=0)],
) -> float:
  """Returns the standard deviation of beta / (alpha + beta) as least squares will find it.

  With J the derivatives of log L by the five constants at these runs, and g those of the exponent,

    sd = noise sqrt(g (J^T J)^-1 g)

  where `noise` is the standard deviation of log L between seeds. Raises ConfigError where the runs
  do not tell the constants of the expected law apart.
  """
  arguments(exponent_error, {'noise': noise}, 'exponent_error', ('law', 'size', 'tokens'))
  x, y = np.log(np.asarray(size, np.float64)), np.log(np.asarray(tokens, np.float64))
  of_size, of_data = law.a * np.exp(-law.alpha * x), law.b * np.exp(-law.beta * y)
  # By E, log A, log B, alpha and beta.
  columns = np.stack([np.ones_like(x), of_size, of_data, -of_size * x, -of_data * y], 1)
  jacobian = columns / (law.e + of_size + of_data)[:, None]
  scale = np.linalg.norm(jacobian, axis=0)
  if np.linalg.matrix_rank(jacobian / scale, tol=1e-9) < 5:
    raise ConfigError(
      f'{len(x)} runs do not tell the five constants of a law apart; take more budgets or sizes'
    )
  both = (law.alpha + law.beta) ** 2
  gradient = np.array([0, 0, 0, -law.beta / both, law.alpha / both]) / scale
  covariance = np.linalg.inv((jacobian / scale).T @ (jacobian / scale))
  return noise * math.sqrt(gradient @ covariance @ gradient)


def cheapest_sweep(
  law: Law,
  compute: float,
  *,
  noise: Annotated[float, Range(above=0)],
  half_width: Annotated[float, Range(above=0)],
) -> Sweep:
  """Returns the sweep with the fewest operations that fixes the exponent and passes the audit.

  `law` is about what you expect, `compute` the budget that it is used at; see `exponent_error`.
  """
  best = None
  for below, span, count, decades in itertools.product(_BELOW, _SPANS, _COUNTS, _WIDTHS):
    budgets = compute * 10 ** np.linspace(-below - span, -below, count)
    offsets = 10 ** np.linspace(-decades / 2, decades / 2, _SIZES)
    size = np.concatenate([law.optimum(budget).size * offsets for budget in budgets])
    flops = np.repeat(budgets, _SIZES)
    error = exponent_error(law, size, flops / (law.flops * size), noise)
    reach = float(norm.ppf(ENDS[1])) * error
    seeds = max(1, math.ceil((reach / half_width) ** 2))
    total = float(seeds * flops.sum())
    if best is None or total < best.flops:
      best_budgets = tuple(float(budget) for budget in budgets)
      best = Sweep(best_budgets, _SIZES, decades, seeds, total, reach / math.sqrt(seeds))
  assert best is not None
  return best


def describe_precision(points: Sequence[Point], noise: float) -> str:
  """Describes how precise the exponent of a grid will be, and which sweep would fix it.

  Assumes that middle sizes are the best ones, and that losses follow Hoffmann et al.'s law there.
  """
  lines = []
  for recipe in sorted({point.recipe for point in points}):
    runs = [point for point in points if point.recipe == recipe for _ in point.seeds]
    middle = {point.budget: [p.size for p in runs if p.budget == point.budget] for point in runs}
    # Sizes and data in units in which that law has its optimum at the middle of the grid.
    best = {budget: math.sqrt(min(sizes) * max(sizes)) for budget, sizes in middle.items()}
    top = max(best)
    offset = {b: HOFFMANN.optimum(b / top * _AT).size / size for b, size in best.items()}
    size = np.array([point.size * offset[point.budget] for point in runs])
    flops = np.array([point.budget / top * _AT for point in runs])
    reach = float(norm.ppf(ENDS[1])) * exponent_error(
      HOFFMANN, size, flops / (HOFFMANN.flops * size), noise
    )
    lines.append(
      f'{recipe}: beta / (alpha + beta) will be sure to +-{reach:.2g} (95%), if losses of seeds '
      f'scatter by {noise:.2%} and fall as by the law of Hoffmann et al.'
    )
  compute = max(point.budget for point in points)
  sweep = cheapest_sweep(HOFFMANN, _AT, noise=noise, half_width=_GOAL)
  scale = compute / _AT
  spent = sum(point.flops * len(point.seeds) for point in points)
  lines.append(
    f'the cheapest sweep that pins it to +-{_GOAL} for use at {compute:.3g} FLOPs, within what fit '
    f'warns of: {len(sweep.budgets)} budgets from {scale * min(sweep.budgets):.3g} to '
    f'{scale * max(sweep.budgets):.3g}, {sweep.sizes} sizes each over {sweep.decades} decades, '
    f'{sweep.seeds} seeds: {scale * sweep.flops:.3g} FLOPs, '
    f"{scale * sweep.flops / spent:.2g} of this grid's"
  )
  return '\n'.join(lines)
