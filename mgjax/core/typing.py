"""Types of arrays and functions that all packages share.

Axis letters in annotations: `b` batch, `t h w` frames, height, width, `c` channels, `n` tokens,
`m` context tokens, `d` width, `k` head size, `g` heads, `f` hidden, `s` audio samples, `l` layers.
Channels come last everywhere. Flow time is called `time` and lies in [0, 1]: 0 is noise, 1 is data.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

from jaxtyping import Array, Bool, Float, Int, Num, PRNGKeyArray, UInt8

__all__ = [
  'Array', 'Batch', 'Bool', 'Critic', 'Drop', 'Float', 'Int', 'Key', 'Metrics', 'Num', 'Objective',
  'Predict', 'Tree', 'UInt8',
]  # fmt: skip

Key = PRNGKeyArray
Tree = Any  # any pytree of arrays
Batch = dict[str, Any]  # name -> array, every array with the batch axis first
Metrics = dict[str, Any]  # name -> scalar array, or two: a sum and its weight
Drop = dict[str, Any]  # conditioning name -> (b,) bool; True rows see no condition
Predict = Callable[..., Any]  # a model with its parameters bound
Objective = Callable[[Predict, Batch, Any], tuple[Any, Metrics]]


class Critic(NamedTuple):
  """What the objective of a generator sees of its discriminator; see `training/adversarial.py`."""

  predict: Predict  # the discriminator with its parameters bound
  active: Array  # (), bool; before that its judgement must not count
