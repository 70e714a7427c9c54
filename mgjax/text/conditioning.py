"""Text as a condition: a byte-level encoder that is trained with the model."""

import logging
from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from mgjax.core.errors import ConfigError
from mgjax.core.ports import Ports
from mgjax.core.typing import Array, Batch, Bool, Float, Int
from mgjax.nn.conv import TemporalConv
from mgjax.nn.linear import FAN_IN, Linear, parameter
from mgjax.nn.mlp import SwiGLU
from mgjax.nn.multihead import MultiHeadAttention
from mgjax.nn.norm import LayerNorm, RMSNorm
from mgjax.text.prompts import with_frame_rate
from mgjax.text.tokenizers import BYTE_VOCABULARY, EOS, PAD, byte_tokens

_log = logging.getLogger(__name__)
_BYTES = jax.nn.initializers.normal(1.0)
_PLACES = jax.nn.initializers.normal(0.1)  # what a word says matters more than where it stands
WINDOW = 7  # bytes
_warned: set[int] = set()  # lengths for which this process has said that a prompt was cut


class ByteText(nn.Module):
  """A prompt's bytes, through a convolution and a small bidirectional transformer, as context.

  ByT5's tokens, and as in the report the encoder's output goes through a linear map to the model
  width and a LayerNorm (Movie Gen §3.1.4); the encoder itself is trained from nothing with the
  model, which suits small worlds. A dropped row reads the empty prompt, the end token alone.

  Attributes:
    dim: model width d.
    width: of the encoder.
    depth: layers of the encoder.
    heads: attention heads of the encoder.
    length: tokens m; longer prompts are cut.
    dtype: compute type.

  Raises:
    ConfigError: the width does not divide into the heads.
  """

  dim: int
  width: int = 128
  depth: int = 2
  heads: int = 4
  length: int = 128
  dtype: jnp.dtype = jnp.float32

  def requires(self) -> tuple[str, ...]:
    """Names the batch keys that `__call__` reads."""
    return ('text',)

  def prepare(self, sample: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """Turns a sample's 'caption' and, of videos, 'fps' into the batch's arrays, on the host."""
    text = with_frame_rate(sample['caption'], sample.get('fps'))
    if (size := len(text.encode('utf-8', errors='replace'))) > self.length - 1:
      _warn_of_cut(size, self.length - 1)
    return {'text': byte_tokens(text, self.length)}

  @nn.compact
  def __call__(self, batch: Batch, drop: Bool[Array, ' b']) -> Ports:
    if self.width % self.heads:
      raise ConfigError(f'{self.name}.width = {self.width} does not divide into {self.heads} heads')
    tokens = batch['text']
    empty = jnp.zeros((1, tokens.shape[1]), tokens.dtype).at[:, 0].set(EOS)
    tokens = jnp.where(drop[:, None], empty, tokens)
    mask = tokens != PAD
    x = self._embed(tokens, mask)
    for layer in range(self.depth):
      x = _EncoderLayer(self.heads, self.dtype, name=f'layer_{layer}')(x, mask)
    return Ports(context=self._project(x), context_mask=mask)

  def _embed(self, tokens: Int[Array, 'b m'], mask: Bool[Array, 'b m']) -> Float[Array, 'b m e']:
    table_axes, place_axes = ('vocabulary', 'embed'), ('positions', 'embed')
    table = parameter(self, 'table', _BYTES, table_axes, (BYTE_VOCABULARY, self.width))
    places = parameter(self, 'places', _PLACES, place_axes, (self.length, self.width))
    x = (table[tokens] * mask[..., None]).astype(self.dtype)
    # A byte says little alone; a window of them is a word wherever it stands.
    words = TemporalConv(self.width, WINDOW, initializer=FAN_IN, dtype=self.dtype, name='words')
    x = x + words(x[:, :, None, None])[:, :, 0, 0]
    return x + places[None, : tokens.shape[1]].astype(self.dtype)

  def _project(self, x: Float[Array, 'b m e']) -> Float[Array, 'b m d']:
    x = RMSNorm(dtype=self.dtype, name='norm')(x)
    x = Linear(self.dim, ('hidden', 'embed'), dtype=self.dtype, name='project')(x)
    return LayerNorm(dtype=self.dtype, name='project_norm')(x)


def _warn_of_cut(size: int, read: int) -> None:
  # Training prepares a sample in every epoch: a line for each would bury all others.
  if read not in _warned:
    _warned.add(read)
    _log.warning('a prompt of %d bytes was cut to the %d read; others are cut unsaid', size, read)


class _EncoderLayer(nn.Module):
  heads: int
  dtype: jnp.dtype

  @nn.compact
  def __call__(self, x: Float[Array, 'b m e'], mask: Bool[Array, 'b m']) -> Array:
    size = x.shape[-1] // self.heads
    y = RMSNorm(dtype=self.dtype, name='self_norm')(x)
    x = x + MultiHeadAttention(self.heads, size, dtype=self.dtype, name='self')(y, mask=mask)
    y = RMSNorm(dtype=self.dtype, name='feed_norm')(x)
    return x + SwiGLU(3 * x.shape[-1], self.dtype, name='feed_forward')(y)
