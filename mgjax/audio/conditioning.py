"""What the audio model hears of a video and of known sound (Movie Gen §6).

Text comes in through a conditioning of `mgjax/text/`, as for video, by cross-attention.
"""

from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
import numpy as np

from mgjax.core.ports import Ports
from mgjax.core.typing import Array, Batch, Bool
from mgjax.nn.linear import ZEROS, Linear, parameter
from mgjax.nn.norm import LayerNorm


class FrameFeatures(nn.Module):
  """tanh(gate) LayerNorm(features W), one vector a latent, added to the tokens frame by frame.

  The features of the frame on show (Long-prompt MetaCLIP's in the report) at the rate of the
  latents. The report found adding better than appending. The gate starts at zero, one number a
  channel (its form is not in public sources), so a model of text alone is this one untrained.
  Features that are all zero say that there is no video, as dropping does.

  Attributes:
    dim: model width d.
    features: numbers a frame.
    dtype: compute type.
  """

  dim: int
  features: int = 1024
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


class AudioContext(nn.Module):
  """Latents that are known, zeros where they are not: sound to go on with or to fill up.

  The report lays them beside the noisy latents as more channels; a linear map of a concatenation is
  a sum of linear maps, of which this one starts at zero.

  Attributes:
    dim: model width d.
    dtype: compute type.
  """

  dim: int
  dtype: jnp.dtype = jnp.float32

  def requires(self) -> tuple[str, ...]:
    """Names the batch keys that `__call__` reads."""
    return ('context',)

  def prepare(self, sample: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """Takes a sample's 'context' (t 1 1 c) over; in training the objective draws it instead."""
    return {'context': np.asarray(sample['context'], np.float32)} if 'context' in sample else {}

  @nn.compact
  def __call__(self, batch: Batch, drop: Bool[Array, ' b']) -> Ports:
    context = batch['context'].astype(self.dtype)
    context = jnp.where(drop[:, None, None], 0, context.reshape(*context.shape[:2], -1))
    axes = ('patch', 'embed')
    project = Linear(self.dim, axes, initializer=ZEROS, dtype=self.dtype, name='project')
    return Ports(tokens=project(context))
