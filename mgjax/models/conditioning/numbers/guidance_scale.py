"""GuidanceScale: how strong guidance is to be (Meng et al. 2023; flow/distillation/guidance.py)."""

from collections.abc import Sequence
from typing import ClassVar

from mgjax.flow.distillation.guidance import SCALES
from mgjax.models.conditioning.numbers.number import Number


class GuidanceScale(Number):
  """Reads 'guidance_scales', s of each of the `conditions`, in the order that guidance nests them.

  No scale that is learnt is 0, which says that none is told. A scale of 1, which is no guidance, is
  told as any other: what the model learnt to add for all of them must not be missing there.
  """

  conditions: Sequence[str] = ('text',)
  key: ClassVar[str] = SCALES
  centre: ClassVar[float] = 1.0
  unit: ClassVar[float] = 10.0

  @property
  def shape(self) -> tuple[int, ...]:
    """A number a condition."""
    return (len(self.conditions),)
