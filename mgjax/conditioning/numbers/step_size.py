"""StepSize: how large a step is asked for (Frans et al. 2024; flow/distillation/few_steps.py)."""

from typing import ClassVar

from mgjax.conditioning.numbers.number import Number
from mgjax.flow.distillation.few_steps import STEP


class StepSize(Number):
  """Reads 'step_size', the share s of the way that a step takes; 0, the velocity's, adds nothing.

  Attributes as `Number`.
  """

  key: ClassVar[str] = STEP
