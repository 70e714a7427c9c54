"""The state of a training run: everything that a step reads and writes."""

import flax.struct

from mgjax.core.typing import Array, Tree


@flax.struct.dataclass
class State:
  """What one training step turns into the next.

  Attributes:
    step: int32 scalar, the number of steps done.
    params: the trained parameters, float32.
    opt_state: the optimizer's state.
    average: the exponential moving average of `params`, float32; an empty tree if none is kept.
  """

  step: Array
  params: Tree
  opt_state: Tree
  average: Tree
