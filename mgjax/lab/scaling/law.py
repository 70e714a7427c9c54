"""The law of loss by size and data, and what it says of a budget (Movie Gen §3.6)."""

import dataclasses
import math
from typing import Annotated

import numpy as np
from scipy.optimize import brentq

from mgjax.core.settings import Checked, Range
from mgjax.core.typing import Float

FLOPS = 6.0  # of a parameter and a token, forward and backward; without attention's own
Above0 = Annotated[float, Range(above=0, most=1e300)]  # A of large sizes is large
_FURTHEST = 1e12  # factor of compute at which a search for an equal loss gives up


@dataclasses.dataclass(frozen=True)
class Optimum:
  """How a budget of C FLOPs is spent best: N parameters, D tokens, and the loss L(N, D)."""

  compute: float
  size: float
  tokens: float
  loss: float


@dataclasses.dataclass(frozen=True)
class Law(Checked):
  """L(N, D) = E + A / N^alpha + B / D^beta, of N parameters and D tokens (Hoffmann et al., 2022).

  E is the loss that no size and no data takes away; `flops` is k of C = k N D.
  """

  e: Annotated[float, Range(least=0)]
  a: Above0
  b: Above0
  alpha: Above0
  beta: Above0
  flops: Above0 = FLOPS

  @property
  def exponent(self) -> float:
    """Returns that of the best size by compute, beta / (alpha + beta)."""
    return self.beta / (self.alpha + self.beta)

  def loss(
    self, size: Float[np.ndarray, '...'] | float, tokens: Float[np.ndarray, '...'] | float
  ) -> Float[np.ndarray, '...'] | float:
    """Returns L(N, D)."""
    return self.e + self.a * size**-self.alpha + self.b * tokens**-self.beta

  def optimum(self, compute: float) -> Optimum:
    """Returns the size and the data of least loss for a budget.

    With G = (alpha A / (beta B))^(1 / (alpha + beta)),

      N* = G (C / k)^(beta / (alpha + beta)),  D* = C / (k N*)
    """
    share = (self.alpha * self.a / (self.beta * self.b)) ** (1 / (self.alpha + self.beta))
    size = share * (compute / self.flops) ** self.exponent
    tokens = compute / (self.flops * size)
    return Optimum(compute, size, tokens, float(self.loss(size, tokens)))

  def at(self, compute: float, size: float) -> float:
    """Returns the loss of a size that a budget is spent on."""
    return float(self.loss(size, compute / (self.flops * size)))

  def compute_for(self, loss: float) -> float:
    """Returns the least budget of a loss, inf where none reaches it."""
    if loss <= self.e:
      return math.inf

    def short(log: float) -> float:
      return math.log(self.optimum(math.exp(log)).loss - self.e) - math.log(loss - self.e)

    low = -math.log(_FURTHEST)
    high = math.log(_FURTHEST)
    while short(low) < 0:
      low *= 2
    while short(high) > 0:
      high *= 2
    return math.exp(brentq(short, low, high, xtol=1e-12, rtol=1e-14))

  def price(self, compute: float, factor: float) -> float:
    """Returns how much more compute a size costs than the best one, as a factor, for equal loss.

    The size is `factor` times the best one of the budget; the loss is that which it comes to.
    """
    size = self.optimum(compute).size * factor
    return compute / self.compute_for(self.at(compute, size))
