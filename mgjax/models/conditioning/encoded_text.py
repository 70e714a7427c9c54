"""EncodedText: embeddings of prompts by frozen text encoders (Movie Gen §3.1.4, §6)."""

from collections.abc import Mapping

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from mgjax.core.configuration.keys import Fields
from mgjax.core.errors import ConfigError, DataError
from mgjax.core.settings import Positive
from mgjax.core.typing import Array, Batch, Bool, Float
from mgjax.models.conditioning.contract import Arrays, Conditioning, Latents, array
from mgjax.models.conditioning.ports import Ports
from mgjax.models.text.prompts import EMBEDDINGS
from mgjax.nn.linear import Linear, parameter
from mgjax.nn.norm import LayerNorm

_NULL = jax.nn.initializers.normal(1.0)  # as large as what a LayerNorm gives


class EncodedText(Conditioning):
  """Concatenates the tokens of several encoders, each projected to the model width, as context.

    context = [LayerNorm_e(states_e W_e) for every encoder e], along m

  In the paper UL2 and Long-prompt MetaCLIP read the prompt, and ByT5 what it quotes. Where an
  encoder read nothing, because the prompt quotes nothing or the row is dropped, one learned token
  stands in; that it is learned is not in public sources. Parameters are named after the encoders.

  Attributes:
    encoders: name -> `features`, the width e of its states, and `length`, how many of them m. Its
      states come as the sample's field 'embeddings'.
    dtype: compute type; states of batches are bfloat16, half as much to move.
  """

  dim: int
  encoders: Mapping[str, Mapping[str, Positive]]
  dtype: jnp.dtype = jnp.float32

  def requires(self, latents: Latents) -> Arrays:
    """Returns each encoder's states (m e) and their mask (m)."""
    arrays = {}
    for name, shape in sorted(self.encoders.items()):
      key, mask = _keys(name)
      arrays[key] = array((shape['length'], shape['features']), jnp.bfloat16)
      arrays[mask] = array((shape['length'],), bool)
    return arrays

  def prepare(self, sample: Fields) -> dict[str, np.ndarray]:
    """Turns a sample's 'embeddings' into the batch's arrays, padded, with their masks.

    Raises:
      ConfigError: the sample has none at all.
      DataError: they are of another encoder than the configuration says.
    """
    if EMBEDDINGS not in sample:
      raise ConfigError(
        'the model reads stored embeddings of prompts, and there are none: name the encoders in '
        'config.text and let launch.data encode make them'
      )
    arrays: dict[str, np.ndarray] = {}
    for name, shape in sorted(self.encoders.items()):
      states = sample[EMBEDDINGS].get(name)
      if states is None:
        states = np.zeros((0, shape['features']), np.float32)
      length, width = states.shape
      if width != shape['features'] or length > shape['length']:
        raise DataError(
          f'{name} gave {length} tokens of {width} numbers; expected at most {shape["length"]} of '
          f'{shape["features"]}: mend config.model.conditionings.{self.name}.encoders.{name}, or '
          'the encoder that config.text names'
        )
      padded = np.zeros((shape['length'], width), jnp.bfloat16)
      padded[:length] = states
      key, mask = _keys(name)
      arrays |= {key: padded, mask: np.arange(shape['length']) < length}
    return arrays

  @nn.compact
  def __call__(self, batch: Batch, drop: Bool[Array, ' b'], latents: Latents) -> Ports:
    contexts = []
    masks = []
    for name in sorted(self.encoders):
      key, mask = _keys(name)
      read_states = _Read(self.dim, self.dtype, name=name)
      context, valid = read_states(batch[key], batch[mask] & ~drop[:, None])
      contexts.append(context)
      masks.append(valid)
    return Ports(
      context=jnp.concatenate(contexts, axis=1), context_mask=jnp.concatenate(masks, axis=1)
    )


class _Read(nn.Module):
  """Projects one encoder's states and mask to context and mask; a learned token if none."""

  dim: int
  dtype: jnp.dtype

  @nn.compact
  def __call__(
    self, states: Float[Array, 'b m e'], mask: Bool[Array, 'b m']
  ) -> tuple[Float[Array, 'b m d'], Bool[Array, 'b m']]:
    x = jnp.where(mask[..., None], states, 0).astype(self.dtype)
    x = Linear(self.dim, ('patch', 'embed'), dtype=self.dtype, name='project')(x)
    x = LayerNorm(dtype=self.dtype, name='norm')(x)
    null = parameter(self, 'null', _NULL, ('embed',), (self.dim,)).astype(self.dtype)
    first = jnp.arange(mask.shape[1])[None] == 0
    nothing = first & ~jnp.any(mask, axis=1, keepdims=True)
    x = jnp.where(nothing[..., None], null[None, None], jnp.where(mask[..., None], x, 0))
    return x, mask | nothing


def _keys(name: str) -> tuple[str, str]:
  return f'text_{name}', f'text_{name}_mask'
