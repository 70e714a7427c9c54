"""Rejected: the sample that lost a vote, for training from preferences; it conditions nothing."""

from collections.abc import Mapping
from typing import ClassVar

import jax.numpy as jnp
import numpy as np

from mgjax.core.configuration.keys import Fields
from mgjax.core.typing import Array, Batch, Bool
from mgjax.flow.distillation.preference import REJECTED_KEY, VOTES
from mgjax.models.conditioning.contract import Arrays, Conditioning, Latents, array
from mgjax.models.conditioning.ports import Ports


class Rejected(Conditioning):
  """Brings 'rejected' into batches, as latents, and 'votes' of latent frames; has no parameters.

  `flow.distillation.preference` reads both. A model with it is sampled as one without.

  Attributes:
    segments: whether samples have votes of their own for each latent frame.
  """

  segments: bool = False
  optional: ClassVar[bool] = True

  def requires(self, latents: Latents) -> Arrays:
    """Returns the latents of the other sample, and the votes."""
    votes = {VOTES: array(latents[:1], jnp.float32)} if self.segments else {}
    return {REJECTED_KEY: array(latents, jnp.float32), **votes}

  def fields(self, shape: tuple[int, int, int], latents: Latents) -> Mapping[str, tuple[int, ...]]:
    """Returns the fields of the other sample, a clip, and of the votes."""
    return {REJECTED_KEY: (*shape, 3)} | ({VOTES: latents[:1]} if self.segments else {})

  def encodes(self) -> tuple[str, ...]:
    """Names the other sample."""
    return (REJECTED_KEY,)

  def clips(self, sample: Fields) -> dict[str, np.ndarray]:
    """Returns the other sample's clip."""
    return {REJECTED_KEY: sample[REJECTED_KEY]} if REJECTED_KEY in sample else {}

  def prepare(self, sample: Fields) -> dict[str, np.ndarray]:
    """Returns the votes."""
    return {VOTES: np.asarray(sample[VOTES], np.float32)} if self.segments else {}

  def __call__(self, batch: Batch, drop: Bool[Array, ' b'], latents: Latents) -> Ports:
    """Returns nothing."""
    return Ports()
