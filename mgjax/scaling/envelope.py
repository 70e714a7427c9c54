"""The least loss of all runs on their way, by compute, and the sizes that reach it.

The first approach of Hoffmann et al. (2022), which HunyuanVideo used as well. It needs no grid of
budgets, but losses on the way stand for runs that end there. Under a schedule that lowers the
learning rate they are above those, the more the longer the run, so the exponent may be off.
"""

from collections.abc import Sequence
from typing import Annotated

import numpy as np

from mgjax.core.errors import DataError
from mgjax.core.settings import Range
from mgjax.core.typing import Float
from mgjax.scaling.isoflop import PowerLaw, fit_power
from mgjax.scaling.law import FLOPS
from mgjax.scaling.records import Curve

FEWEST = 3  # sizes that are best somewhere, without the smallest and the largest
_DENSITY = 500  # budgets a decade at which the least loss is looked for


def fit_envelope(
  sizes: Float[np.ndarray, 'r'],
  curves: Sequence[Curve],
  *,
  flops: Annotated[float, Range(above=0)] = FLOPS,
) -> PowerLaw:
  """Fits N*(C), N of the run that has the least loss after C FLOPs, by budgets dense in log C.

  Losses between two points of a curve are taken along a line in log C. Budgets count where a
  smaller and a larger size were run as far, and neither the smallest nor the largest is the best:
  there a size beyond these may be better.

  Args:
    sizes: N of every run.
    curves: of every run tokens and loss by ascending tokens; runs without one are left out.
    flops: k of C = k N D.

  Raises:
    DataError: fewer than three sizes are the best somewhere.
  """
  runs = [
    (float(size), np.log(flops * size * curve[:, 0]), curve[:, 1])
    for size, curve in zip(sizes, curves, strict=True)
    if len(curve) > 1
  ]
  if not runs:
    raise DataError('no run has losses on its way; add a column curve of [tokens, loss]')
  low, high = (edge(c[place] for _, c, _ in runs) for edge, place in ((min, 0), (max, -1)))
  at = np.linspace(low, high, max(int((high - low) / np.log(10) * _DENSITY), 2))
  losses = np.array([np.interp(at, c, loss, np.inf, np.inf) for _, c, loss in runs])
  known = np.array([size for size, _, _ in runs])
  best = known[losses.argmin(0)]
  there = np.isfinite(losses)
  smallest = np.where(there, known[:, None], np.inf).min(0)
  largest = np.where(there, known[:, None], -np.inf).max(0)
  kept = (smallest < best) & (best < largest)
  if len(found := np.unique(best[kept])) < FEWEST:
    raise DataError(
      f'{len(found)} sizes have the least loss somewhere between a smaller and a larger one; '
      f'expected {FEWEST} at least: run more sizes, or the large ones for longer'
    )
  return fit_power(np.exp(at[kept]), best[kept])
