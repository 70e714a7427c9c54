"""Means of the parameters of several models, weighted and greedy (Movie Gen §3.3)."""

import dataclasses
import math
from collections.abc import Callable, Iterable, Sequence

import jax
import numpy as np

from mgjax.core.errors import ConfigError
from mgjax.core.typing import Tree
from mgjax.parallel.distributed import fetch


class Mean:
  """A weighted mean of parameters that grows, in float64 on the host.

    p = sum_i w_i p_i / sum_i w_i

  A sum in float32 would lose a bit of every parameter with each model; here the result alone is
  rounded. It takes 8 bytes a parameter, and as many again while one more is added.
  """

  def __init__(self, total: Tree = None, weight: float = 0.0):
    self._total, self._weight = total, weight

  def plus(self, params: Tree, weight: float = 1.0) -> 'Mean':
    """Returns the mean with one more model; this one stays as it is.

    Args:
      params: of the structure and shapes of those before.
      weight: above 0.
    """
    if self._total is None:
      total = jax.tree.map(lambda p: weight * p.astype(np.float64), fetch(params))
    else:  # leaf by leaf, or the products would lie in memory all at once
      total = jax.tree.map(
        lambda t, p: t + weight * p.astype(np.float64), self._total, fetch(params)
      )
    return Mean(total, self._weight + weight)

  def value(self) -> Tree:
    """The mean as float32 numpy arrays."""
    return jax.tree.map(lambda total: (total / self._weight).astype(np.float32), self._total)


def mean_params(trees: Iterable[Tree], weights: Sequence[float]) -> Tree:
  """The weighted mean of the parameters of several runs; see `Mean`.

  Movie Gen averages models fine-tuned with different data, hyper-parameters and pre-trained
  checkpoints (§3.3); its weights are not in public sources.

  Args:
    trees: parameters of equal structure and shapes, read one after the other.
    weights: one for each tree.

  Returns:
    The mean, float32 on the host.

  Raises:
    ConfigError: weights that are no shares.
  """
  if not weights or not all(math.isfinite(w) and w > 0 for w in weights):
    raise ConfigError(f'cannot average with the weights {list(weights)}; each must be above 0')
  mean = Mean()
  for params, weight in zip(trees, weights, strict=True):
    mean = mean.plus(params, weight)
  return mean.value()


@dataclasses.dataclass(frozen=True)
class Trial:
  """A candidate for a greedy mean.

  Attributes:
    index: of the candidate.
    loss: of the mean with it; of the first, its own.
    taken: whether it stays in the mean.
  """

  index: int
  loss: float
  taken: bool


def greedy_mean(
  losses: Sequence[float], load: Callable[[int], Tree], validate: Callable[[Tree], float]
) -> tuple[Tree, list[Trial]]:
  """The mean of those models that make it better, as in model soups (Wortsman et al., 2022).

    S = {best};  for i by ascending loss:  S <- S + {i}  if  L(mean(S + {i})) < L(mean(S))

  So it is never worse, by the validation loss L, than the best model alone.

  Args:
    losses: L of each model alone.
    load: reads the parameters of one; called once for each, by ascending loss.
    validate: L of parameters.

  Returns:
    The mean, float32 on the host, and what was tried, in that order.

  Raises:
    ConfigError: no model has a finite loss.
  """
  order = sorted(
    (i for i, loss in enumerate(losses) if math.isfinite(loss)), key=losses.__getitem__
  )
  if not order:
    raise ConfigError(f'no model to average has a finite validation loss: {list(losses)}')
  first, *others = order
  mean, best = Mean().plus(load(first)), losses[first]
  trials = [Trial(first, best, True)]
  for index in others:
    wider = mean.plus(load(index))
    loss = validate(wider.value())
    if taken := loss < best:
      mean, best = wider, loss
    trials.append(Trial(index, loss, taken))
  return mean.value(), trials
