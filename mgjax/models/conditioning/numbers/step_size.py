"""StepSize: how large a step is asked for (Frans et al. 2024; flow/distillation/few_steps.py)."""

from typing import Annotated, ClassVar

from mgjax.core.settings import Range
from mgjax.flow.distillation.few_steps import STEP_SIZE
from mgjax.models.conditioning.numbers.number import Number


class StepSize(Number):
  """Reads 'step_size', the share s of the way that a step takes; 0, the velocity's, adds nothing.

  Attributes as `Number`.
  """

  unit: Annotated[float, Range(above=0)] = 1.0
  key: ClassVar[str] = STEP_SIZE
  internal: ClassVar[bool] = True
