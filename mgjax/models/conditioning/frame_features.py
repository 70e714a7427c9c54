"""FrameFeatures: features of video frames, for the audio model (Movie Gen §6)."""

from collections.abc import Mapping
from typing import ClassVar

import flax.linen as nn
import jax.numpy as jnp
import numpy as np

from mgjax.core.configuration.keys import Fields
from mgjax.core.errors import DataError
from mgjax.core.settings import Finite, Positive
from mgjax.core.typing import Array, Batch, Bool
from mgjax.models.conditioning.contract import Arrays, Conditioning, Latents, array
from mgjax.models.conditioning.ports import Ports
from mgjax.nn.linear import ZEROS, Linear, parameter
from mgjax.nn.norm import LayerNorm

FRAME_FEATURES_KEY = 'frame_features'


class FrameFeatures(Conditioning):
  """tanh(gate) LayerNorm((x - background) W), x one vector a latent, added to tokens by frame.

  Features are those of the frame shown at each latent (Long-prompt MetaCLIP's in the paper). The
  paper found adding better than appending. The gate starts at zero, one number a channel (its form
  is not in public sources), so that adding the module leaves a text-only model unchanged. Features
  that are all zero mean no video, as dropping does.

  Attributes:
    background: what the features of an empty picture are, which the map does not see; -1 of pixels
      in [-1, 1]. What all features have in common would else be most of what the norm lets through.
  """

  dim: int
  features: Positive = 1024
  background: Finite = 0.0
  dtype: jnp.dtype = jnp.float32
  optional: ClassVar[bool] = True

  def requires(self, latents: Latents) -> Arrays:
    """Returns the features (t e) of the frame shown at each latent."""
    return {FRAME_FEATURES_KEY: array((latents[0], self.features), np.float32)}

  def fields(self, shape: tuple[int, int, int], latents: Latents) -> Mapping[str, tuple[int, ...]]:
    """Returns the field 'frame_features' (t e)."""
    return {FRAME_FEATURES_KEY: (latents[0], self.features)}

  def prepare(self, sample: Fields) -> dict[str, np.ndarray]:
    """Returns a sample's 'frame_features' if any; DataError if they are of another encoder."""
    if FRAME_FEATURES_KEY not in sample:
      return {}
    features = np.asarray(sample[FRAME_FEATURES_KEY], np.float32)
    if features.shape[-1] != self.features:
      raise DataError(
        f'frames have {features.shape[-1]} features; expected {self.features}: mend '
        f'config.model.conditionings.{self.name}.features, or the encoder that config.vision names'
      )
    return {FRAME_FEATURES_KEY: features}

  @nn.compact
  def __call__(self, batch: Batch, drop: Bool[Array, ' b'], latents: Latents) -> Ports:
    if FRAME_FEATURES_KEY not in batch:
      return Ports()
    x = batch[FRAME_FEATURES_KEY].astype(self.dtype)
    seen = jnp.any(x != 0, axis=(1, 2)) & ~drop
    x = x - self.background
    x = Linear(self.dim, ('patch', 'embed'), dtype=self.dtype, name='project')(x)
    x = LayerNorm(dtype=self.dtype, name='norm')(x)
    gate = jnp.tanh(parameter(self, 'gate', ZEROS, ('embed',), (self.dim,))).astype(self.dtype)
    return Ports(tokens=jnp.where(seen[:, None, None], x * gate[None, None], 0))
