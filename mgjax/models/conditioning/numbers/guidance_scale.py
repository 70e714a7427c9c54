"""GuidanceScale: how strong guidance is to be (Meng et al. 2023; flow/distillation/guidance.py)."""

from collections.abc import Sequence
from typing import ClassVar

from mgjax.flow.distillation.guidance import SCALES
from mgjax.models.conditioning.numbers.number import Number


class GuidanceScale(Number):
  """Reads 'guidance_scales', s of each of the `conditions`, in the order that guidance nests them.

  Trained scales are never 0, which means that no scale is given. A scale of 1, which is no
  guidance, is a scale like any other: the model must add there what it adds for all of them.
  """

  conditions: Sequence[str] = ('text',)
  key: ClassVar[str] = SCALES
  internal: ClassVar[bool] = True
  centre: ClassVar[float] = 1.0
  unit: ClassVar[float] = 10.0

  @property
  def shape(self) -> tuple[int, ...]:
    """A number a condition."""
    return (len(self.conditions),)
