"""Shares of a chip's peak that work is counted with, a low and a high end each, and their sources.

Ours were timed on one H200 (docs/experiments/peak_shares.md); of other chips, published ends are of
other people's programs for the same work: video transformers of about 75,000 tokens with heads of
128. Where nothing is published of a chip, the low end is the lowest of the chips that something is
published of; a high end that is only assumed is what a good kernel should reach.
Whole training steps that others published are no part of any formula; they are compared with in
`tests/lab/planning/test_efficiency.py`.
"""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Generic, TypeVar

from mgjax.parallel.chips import CHIPS

T = TypeVar('T')

# Matrix products of an attention kernel: Q K^T and P V forward; backward the first one again, dP,
# dQ, dK and dV.
FORWARD, BACKWARD = 2, 5
PEER = 'AI-Hypercomputer/maxdiffusion'


@dataclasses.dataclass(frozen=True)
class Ends(Generic[T]):
  """The same at both ends of the efficiencies: `slow` at the low one, `fast` at the high one."""

  slow: T
  fast: T

  def map(self, function: Callable[[T], object]) -> 'Ends':
    """Returns the function's value at both ends."""
    return Ends(function(self.slow), function(self.fast))


@dataclasses.dataclass(frozen=True)
class Rates:
  """Shares of the peak at one end: linear maps, forward and backward attention kernels."""

  linear: float
  forward: float
  backward: float

  def attention(self, forward: float, differentiated: float = 0.0) -> float:
    """Returns operations at the peak that take as long as these of attention kernels do.

    `differentiated` are of forward kernels with gradients, which take 5 / 2 times those backward.
    """
    backward = differentiated * BACKWARD / FORWARD
    return forward / self.forward + backward / self.backward


@dataclasses.dataclass(frozen=True)
class Share:
  """A share of the peak: its low and its high end, and where they come from."""

  low: float
  high: float
  source: str


@dataclasses.dataclass(frozen=True)
class Efficiency:
  """What a kind of chip is counted with: linear maps with convolutions, and attention kernels."""

  linear: Share
  forward: Share
  backward: Share

  @property
  def rates(self) -> Ends[Rates]:
    """The shares at both ends."""
    shares = (self.linear, self.forward, self.backward)
    return Ends(Rates(*(s.low for s in shares)), Rates(*(s.high for s in shares)))


_LINEAR = Share(
  0.66,
  0.75,
  f'low: fusions of linear maps on v6e ({PEER}), nothing published of this chip; high: assumed',
)
_FORWARD = Share(
  0.36, 0.60, f'low: splash on v6e ({PEER}), nothing published of this chip; high: assumed'
)
# Five forward times for 5 / 2 of the operations: half of the forward kernel's share.
_BACKWARD = Share(
  0.18,
  0.60,
  'low: 5 forward times, as inferred of v5p; nothing published of this chip; high: assumed',
)
_UNKNOWN = Efficiency(_LINEAR, _FORWARD, _BACKWARD)
# 73,728 tokens on one H200: attention alone took 60.0% of the peak forward and 54.3% backward, and
# what a step of four layers takes beside it is linear maps at 65%.
_HOPPER = Efficiency(
  *(
    Share(low, high, 'low: launch.bench on one H200; high: assumed')
    for low, high in ((0.65, 0.75), (0.60, 0.65), (0.54, 0.60))
  )
)

EFFICIENCIES = {
  **dict.fromkeys(CHIPS, _UNKNOWN),
  'v5p': Efficiency(
    _LINEAR,
    Share(0.60, 0.65, f'high: inferred from whole training steps ({PEER} #273); low: assumed'),
    Share(
      0.24, 0.60, f'low: a whole step then comes to the 29.6% that {PEER} publishes; high: assumed'
    ),
  ),
  'v6e': Efficiency(
    Share(0.66, 0.75, f'low: published ({PEER}); high: assumed'),
    Share(0.36, 0.60, f'low: splash, published ({PEER}); high: assumed'),
    _BACKWARD,
  ),
  'tpu7x': Efficiency(
    _LINEAR,
    Share(0.56, 0.60, f'published, before and after tuning by hand ({PEER} #452)'),
    Share(
      0.28,
      0.60,
      'low: 5 forward times, as inferred of v5p; nothing published of this chip; high: assumed',
    ),
  ),
  **dict.fromkeys(('h100', 'h200'), _HOPPER),
}


def rates_of(chip: str) -> Ends[Rates]:
  """Returns the shares of the peak of a kind of chip, by its name, at both ends."""
  return EFFICIENCIES[chip].rates


def bounds(values: Ends[float]) -> dict[str, float]:
  """Returns the smaller and the larger number as JSON values."""
  return {'low': min(values.slow, values.fast), 'high': max(values.slow, values.fast)}


def words(values: Ends[float], form: str = '.3g') -> str:
  """Returns '1.2 to 3.4', the smaller number first, or one number where both read the same."""
  low, high = (format(value, form) for value in bounds(values).values())
  return low if low == high else f'{low} to {high}'


def lasting(days: Ends[float]) -> str:
  """Returns '12 to 30 days', in hours where days would be 0."""
  if min(days.slow, days.fast) < 0.5:
    return f'{words(days.map(lambda number: 24 * number))} hours'
  return f'{words(days, ",.0f")} days'


def spread(numbers: Mapping[str, float], form: str = '.3g') -> str:
  """Returns what `bounds` made in the words of `words`."""
  return words(Ends(numbers['high'], numbers['low']), form)


def describe_efficiency(chip: str, backward: bool = False) -> list[str]:
  """Returns the shares that a chip is counted with, a line each with its source."""
  efficiency = EFFICIENCIES[chip]
  shares = {'linear maps': efficiency.linear, 'attention kernels forward': efficiency.forward}
  shares |= {'attention kernels backward': efficiency.backward} if backward else {}
  return [
    f'{name} at {share.low:.0%} to {share.high:.0%} of the peak ({share.source})'
    for name, share in shares.items()
  ]
