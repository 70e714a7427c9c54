"""TextStates: states of a frozen text encoder that the backbone maps itself, as Wan reads them."""

import flax.linen as nn
import jax.numpy as jnp
import numpy as np

from mgjax.core.configuration.keys import Fields
from mgjax.core.errors import ConfigError, DataError
from mgjax.core.settings import Positive
from mgjax.core.typing import Array, Batch, Bool
from mgjax.models.conditioning.contract import Arrays, Conditioning, Latents, array
from mgjax.models.conditioning.ports import Ports
from mgjax.models.text.prompts import EMBEDDINGS
from mgjax.nn.linear import ZEROS, parameter


class TextStates(Conditioning):
  """Returns the states of a prompt as context: zeros behind the last one, and no mask.

  Rows that are dropped, and those with an empty prompt, read what the encoder makes of the empty
  prompt, its end token: the parameter `null`, which imported weights bring.

  Attributes:
    encoder: its name in `config.text`; states come as the sample's field 'embeddings'.
    features: width e of its states.
    length: how many of them are read, m.
  """

  encoder: str
  features: Positive
  length: Positive
  dtype: jnp.dtype = jnp.float32

  @property
  def _key(self) -> str:
    return f'text_{self.encoder}'

  def requires(self, latents: Latents) -> Arrays:
    """Returns the encoder's states (m e)."""
    return {self._key: array((self.length, self.features), self.dtype)}

  def prepare(self, sample: Fields) -> dict[str, np.ndarray]:
    """Fills a sample's embeddings up with zeros.

    Raises:
      ConfigError: the sample has no embeddings at all.
      DataError: they are of another encoder than the configuration says.
    """
    if EMBEDDINGS not in sample:
      raise ConfigError(
        f'the model reads embeddings of prompts by {self.encoder!r}, and the sample has none: name '
        'the encoder in config.text'
      )
    arrays = np.zeros((self.length, self.features), self.dtype)
    states = sample[EMBEDDINGS].get(self.encoder, arrays[:0])
    length, width = states.shape
    if width != self.features or length > self.length:
      raise DataError(
        f'{self.encoder} gave {length} tokens of {width} numbers; expected at most {self.length} '
        f'of {self.features}: mend config.model.conditionings.{self.name}, or the encoder that '
        'config.text names'
      )
    arrays[:length] = states
    return {self._key: arrays}

  @nn.compact
  def __call__(self, batch: Batch, drop: Bool[Array, ' b'], latents: Latents) -> Ports:
    states = batch[self._key]
    null = parameter(self, 'null', ZEROS, ('embed',), (self.features,)).astype(states.dtype)
    empty = jnp.zeros(states.shape[1:], states.dtype).at[0].set(null)
    nothing = drop | ~jnp.any(states, axis=(1, 2))
    return Ports(context=jnp.where(nothing[:, None, None], empty[None], states))
