"""Laws of the best size by compute that others published, in one unit, beside which ours stand.

What each says of N*(C) or D*(C) is kept in its own units, with the factors to parameters, tokens
and FLOPs. Tokens are those of each model: of text, or patches of latents. Where a law has one of
both alone the other follows of C = 6 N D. Losses are not compared: they are of other data.

Llama 3's N*(C) is its number of *training tokens*, by its report's own words, though N is the size
elsewhere. Its rounded constants (0.53, 0.29) give 10.5T tokens at 3.8e25 FLOPs, but its report says
16.55T. The constants of its figure 3 (0.537, 0.299) give 16.3T and are used here. Liang et al.
print the factor of the size with one digit, 0.0009, and that of the data with seven: the size is
computed from the data.
"""

import dataclasses
import math
from typing import Annotated

from mgjax.core.settings import Checked, Range
from mgjax.lab.scaling.isoflop import PowerLaw
from mgjax.lab.scaling.law import FLOPS, Above0, Law


@dataclasses.dataclass(frozen=True)
class Published(Checked):
  """A law of the best size and data by compute, from `source`.

  Attributes:
    least: FLOPs of the smallest budget that it was fitted to, None where it is not said.
    most: of the largest.
    size: N*(C) in units of `size_unit` and `compute_unit`, None where tokens are given alone.
    tokens: D*(C) in units of `token_unit` and `compute_unit`, None where sizes are given alone.
    flops: k of C = k N D, by which the one follows of the other; None where it is another formula.
  """

  name: str
  source: str
  least: Above0 | None = None
  most: Above0 | None = None
  size: PowerLaw | None = None
  tokens: PowerLaw | None = None
  size_unit: Above0 = 1.0
  token_unit: Above0 = 1.0
  compute_unit: Above0 = 1.0
  flops: Annotated[float, Range(above=0)] | None = FLOPS

  def best_size(self, compute: float) -> float:
    """Returns N*, parameters, of a budget in FLOPs."""
    if self.size is not None:
      return self.size(compute / self.compute_unit) * self.size_unit
    assert self.tokens is not None and self.flops is not None
    return compute / (self.flops * self.tokens(compute / self.compute_unit) * self.token_unit)

  def best_tokens(self, compute: float) -> float | None:
    """Returns D*, tokens, of a budget in FLOPs; None where the source does not tell."""
    if self.tokens is not None:
      return self.tokens(compute / self.compute_unit) * self.token_unit
    return None if self.flops is None else compute / (self.flops * self.best_size(compute))

  def beyond(self, compute: float) -> bool:
    """Says whether a budget is not among those that it was fitted to."""
    return not (self.least or 0.0) <= compute <= (self.most or float('inf'))


def _of_surface(law: Law) -> PowerLaw:
  return PowerLaw(law.optimum(1.0).size, law.exponent)


# Approach 3 of Hoffmann et al., by the logarithms with all their digits that they gave out.
HOFFMANN = Law(math.exp(0.5267228), math.exp(6.0073404), math.exp(6.0179186), 0.33917084, 0.2849083)
# The optimum of Huber's loss over their points, which Besiroglu et al. read off their figure.
EPOCH = Law(1.817218, 477.826, 2143.417, 0.347310, 0.367172)

PUBLISHED = (
  Published(
    'Llama 3, text',
    'The Llama 3 Herd of Models (arXiv 2407.21783), figure 3',
    6e18,
    1e22,
    tokens=PowerLaw(0.299, 0.537),
  ),
  Published(
    'Chinchilla, text',
    'Hoffmann et al. (arXiv 2203.15556), approach 3',
    6e18,
    3e21,
    size=_of_surface(HOFFMANN),
  ),
  Published(
    'Chinchilla again, text',
    'Besiroglu et al. (arXiv 2404.10102), refit of approach 3',
    6e18,
    3e21,
    size=_of_surface(EPOCH),
  ),
  Published(
    'HunyuanVideo, images',
    'HunyuanVideo (arXiv 2412.03603), section 4.4.1: billions, PFLOPs',
    size=PowerLaw(5.48e-4, 0.5634),
    tokens=PowerLaw(0.324, 0.4325),
    size_unit=1e9,
    token_unit=1e9,
    compute_unit=1e15,
  ),
  Published(
    'HunyuanVideo, videos',
    'HunyuanVideo (arXiv 2412.03603), section 4.4.2: billions, PFLOPs',
    size=PowerLaw(0.0189, 0.3618),
    tokens=PowerLaw(0.0108, 0.6289),
    size_unit=1e9,
    token_unit=1e9,
    compute_unit=1e15,
  ),
  Published(
    'Liang et al., images',
    'Scaling Laws for Diffusion Transformers (arXiv 2410.08184)',
    1e17,
    6e18,
    tokens=PowerLaw(186.8535, 0.4319),
  ),
  # Their FLOPs a token have a term of attention, so tokens do not follow of 6 N D.
  Published(
    'Yin et al., videos',
    'Towards Precise Scaling Laws for Video DiT (arXiv 2411.17470), eq. 14',
    size=PowerLaw(1.5787, 0.4146),
    flops=None,
  ),
)


def rows_at(compute: float) -> list[tuple[str, str, str, str]]:
  """Returns the rows of a table of these laws' predictions for a budget, below a header."""
  rows = [('published law', 'parameters', 'tokens', '')]
  for law in PUBLISHED:
    tokens = law.best_tokens(compute)
    note = 'beyond its budgets' if law.beyond(compute) else ''
    best_tokens = '' if tokens is None else f'{tokens:.3g}'
    rows.append((law.name, f'{law.best_size(compute):.3g}', best_tokens, note))
  return rows
