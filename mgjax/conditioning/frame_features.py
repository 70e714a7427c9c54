"""FrameFeatures: features of video frames, for the audio model (Movie Gen §6)."""

from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
import numpy as np

from mgjax.conditioning.ports import Ports
from mgjax.core.settings import Positive
from mgjax.core.typing import Array, Batch, Bool
from mgjax.nn.linear import ZEROS, Linear, parameter
from mgjax.nn.norm import LayerNorm


class FrameFeatures(nn.Module):
  """tanh(gate) LayerNorm(features W), one vector a latent, added to the tokens frame by frame.

  Features are those of the frame shown at each latent (Long-prompt MetaCLIP's in the report). The
  report found adding better than appending. The gate starts at zero, one number a channel (its form
  is not in public sources), so that adding the module leaves a text-only model unchanged. Features
  that are all zero mean no video, as dropping does.

  Attributes:
    dim: model width d.
    features: numbers a frame.
    dtype: compute type.
  """

  dim: int
  features: Positive = 1024
  dtype: jnp.dtype = jnp.float32

  def requires(self) -> tuple[str, ...]:
    """Names the batch keys that `__call__` reads."""
    return ('frame_features',)

  def prepare(self, sample: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """Turns a sample's 'frame_features' (t e) into the batch's; without, 'frames' of zeros."""
    features = sample.get('frame_features')
    if features is None:
      features = np.zeros((sample.get('frames', 1), self.features))
    return {'frame_features': np.asarray(features, np.float32)}

  @nn.compact
  def __call__(self, batch: Batch, drop: Bool[Array, ' b']) -> Ports:
    x = batch['frame_features'].astype(self.dtype)
    seen = jnp.any(x != 0, axis=(1, 2)) & ~drop
    x = Linear(self.dim, ('patch', 'embed'), dtype=self.dtype, name='project')(x)
    x = LayerNorm(dtype=self.dtype, name='norm')(x)
    gate = jnp.tanh(parameter(self, 'gate', ZEROS, ('embed',), (self.dim,))).astype(self.dtype)
    return Ports(tokens=jnp.where(seen[:, None, None], x * gate[None, None], 0))
