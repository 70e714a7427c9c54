"""LowResolution: the video that is enlarged, in latents (Movie Gen §3.1.5)."""

from typing import ClassVar

from mgjax.core.typing import Array, Batch, Bool
from mgjax.models.conditioning.clips.clip_tokens import ClipTokens
from mgjax.models.conditioning.contract import Latents
from mgjax.models.conditioning.ports import Ports

LOW_RESOLUTION_KEY = 'low_resolution'


class LowResolution(ClipTokens):
  """Reads 'low_resolution', the small video enlarged bilinearly; attributes as `ClipTokens`.

  With `residual` its latents are added to the answer as well, so that a model that has learned
  nothing enlarges bilinearly (not in public sources). Then the projection does not start at zero:
  behind it and the last map, both zero, what is missing has hardly a gradient.
  """

  residual: bool = False
  key: ClassVar[str] = LOW_RESOLUTION_KEY

  @property
  def starts_at_zero(self) -> bool:
    """Whether the projection does: not of a model that answers a residual."""
    return not self.residual

  def __call__(self, batch: Batch, drop: Bool[Array, ' b'], latents: Latents) -> Ports:
    ports = super().__call__(batch, drop, latents)
    return (
      ports.replace(answer=batch[LOW_RESOLUTION_KEY])
      if self.residual and LOW_RESOLUTION_KEY in batch
      else ports
    )
