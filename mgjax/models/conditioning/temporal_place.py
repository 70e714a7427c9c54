"""TemporalPlace: where in the table of temporal positions a row begins (Movie Gen §5)."""

from collections.abc import Mapping
from typing import ClassVar

import flax.linen as nn
import jax.numpy as jnp
import numpy as np

from mgjax.core.configuration.keys import Fields
from mgjax.core.typing import Array, Batch, Bool
from mgjax.models.conditioning.contract import Arrays, Conditioning, Latents, array
from mgjax.models.conditioning.ports import Ports

TEMPORAL_PLACE_KEY = 'temporal_place'


class TemporalPlace(Conditioning):
  """Reads 'temporal_place', the entry of the table that the first frame of latents has; usually 0.

  Pictures that are trained as videos of one frame get any of them, so that all are trained. It has
  no parameters.
  """

  optional: ClassVar[bool] = True

  def requires(self, latents: Latents) -> Arrays:
    """Returns the entry."""
    return {TEMPORAL_PLACE_KEY: array((), np.int32)}

  def fields(self, shape: tuple[int, int, int], latents: Latents) -> Mapping[str, tuple[int, ...]]:
    """Returns the field 'temporal_place', a number."""
    return {TEMPORAL_PLACE_KEY: ()}

  def prepare(self, sample: Fields) -> dict[str, np.ndarray]:
    """Returns a sample's entry if it has one."""
    return (
      {TEMPORAL_PLACE_KEY: np.array(sample[TEMPORAL_PLACE_KEY], np.int32)}
      if TEMPORAL_PLACE_KEY in sample
      else {}
    )

  @nn.compact
  def __call__(self, batch: Batch, drop: Bool[Array, ' b'], latents: Latents) -> Ports:
    return (
      Ports(offset=jnp.where(drop, 0, batch[TEMPORAL_PLACE_KEY]))
      if TEMPORAL_PLACE_KEY in batch
      else Ports()
    )
