"""GuidanceScale: how strong guidance is to be (Meng et al. 2023; flow/distillation/guidance.py)."""

from collections.abc import Sequence
from typing import ClassVar

from mgjax.conditioning.numbers.number import Number
from mgjax.flow.distillation.guidance import EXCESS


class GuidanceScale(Number):
  """Reads 'guidance_excess', s - 1 of each condition that is guided; zeros add nothing.

  A model that is not told of it, or of a scale of 1, answers with its conditional velocity.

  Attributes:
    conditions: their names, in the order in which guidance is nested.
  """

  conditions: Sequence[str] = ('text',)
  key: ClassVar[str] = EXCESS
  unit: ClassVar[float] = 10.0

  @property
  def shape(self) -> tuple[int, ...]:
    """A number a condition."""
    return (len(self.conditions),)
