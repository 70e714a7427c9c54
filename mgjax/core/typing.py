"""Types of arrays, functions and sources of samples that all packages share.

Axis letters in annotations: `b` batch, `t h w` frames, height, width, `c` channels, `n` tokens,
`m` context tokens, `d` width, `k` head size, `g` heads, `f` hidden, `s` audio samples, `l` layers.
Channels come last everywhere. Flow time is called `time` and lies in [0, 1]: 0 is noise, 1 is data.
"""

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

from jaxtyping import Array, Bool, Float, Int, Num, PRNGKeyArray, UInt8, UInt32

from mgjax.core.configuration.keys import Sample

__all__ = [
  'Array',
  'Batch',
  'Bool',
  'Critic',
  'Drop',
  'Float',
  'Int',
  'Key',
  'Metrics',
  'Num',
  'Objective',
  'Predict',
  'Sample',
  'Tree',
  'UInt8',
  'UInt32',
  'Wrapped',
]

Key = PRNGKeyArray
Tree = Any  # any pytree of arrays
Batch = dict[str, Tree]  # name -> array, every array with the batch axis first
Metrics = dict[str, Tree]  # name -> scalar array, or a pair: a sum and its weight
Drop = dict[str, Tree]  # conditioning name -> (b,) bool; the condition of True rows is dropped
Predict = Callable[..., Tree]  # a model with its parameters bound
Objective = Callable[[Predict, Batch, Key], tuple[Array, Metrics]]


class Critic(NamedTuple):
  """The discriminator as the objective of a generator sees it; see `training/adversarial.py`."""

  predict: Predict  # the discriminator with its parameters bound
  active: Array  # (), bool; the generator ignores the discriminator until it is True


class Wrapped:
  """Base class of sources that change the samples of another source."""

  said = ''  # description of the change, for the fingerprint

  def __init__(self, source: Any):
    """Wraps a source, a `mgjax.data.batch_order.Source`."""
    self.source = source

  def change(self, sample: Sample, index: int) -> Sample:
    """Returns the sample to train on."""
    raise NotImplementedError

  @property
  def fingerprint(self) -> str:
    """The fingerprint of the source, and the description of the change."""
    return f'{self.source.fingerprint} {self.said}'

  @property
  def every_caption(self) -> Callable[[], Iterator[Sample] | None]:
    """The source's `every_caption`; AttributeError if it has none."""
    return self.source.every_caption

  def __len__(self) -> int:
    return len(self.source)

  def __getitem__(self, index: int) -> Sample:
    return self.change(self.source[index], index)
