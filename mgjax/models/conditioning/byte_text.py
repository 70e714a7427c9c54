"""ByteText: a small byte-level text encoder, trained with the model (Movie Gen §3.1.4)."""

import logging
from typing import ClassVar

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from mgjax.core.configuration.keys import Fields
from mgjax.core.errors import ConfigError
from mgjax.core.settings import Count, Positive
from mgjax.core.typing import Array, Batch, Bool, Float, Int
from mgjax.models.conditioning.contract import Arrays, Conditioning, Cut, Latents, array
from mgjax.models.conditioning.ports import Ports
from mgjax.models.text.prompts import prompt_of
from mgjax.models.text.tokenizers import BYTE_VOCABULARY, EOS, PAD, byte_tokens
from mgjax.models.text.visual_text import READS
from mgjax.nn.conv import TemporalConv
from mgjax.nn.linear import FAN_IN, Linear, parameter
from mgjax.nn.mlp import SwiGLU
from mgjax.nn.multihead import MultiHeadAttention
from mgjax.nn.norm import LayerNorm, RMSNorm

_log = logging.getLogger(__name__)
_BYTES = jax.nn.initializers.normal(1.0)
_PLACES = jax.nn.initializers.normal(0.1)  # what a word says matters more than where it stands
_WINDOW = 7  # bytes
_warned: set[tuple[int, str]] = set()  # lengths for which this process has said that one was cut


class ByteText(Conditioning):
  """Encodes a prompt's bytes by a convolution and a small bidirectional transformer, as context.

  Tokens are ByT5's. As in the paper, the encoder's output goes through a linear map to the model
  width and a LayerNorm (Movie Gen §3.1.4); the encoder is trained from scratch with the model, for
  small data. A dropped row reads the empty prompt, the end token alone.

  A model may have several: each reads the batch key of its own name. With reads='visual_text' it
  reads only what the prompt quotes, as the paper's ByT5 does.

  Attributes:
    length: tokens m; longer prompts are cut.
    reads: 'prompt', whole and with the frame rate of videos, or 'visual_text'.

  Raises:
    ConfigError: the width does not divide into the heads, or there is no such text to read.
  """

  dim: int
  width: Positive = 128
  depth: Count = 2
  heads: Positive = 4
  length: Positive = 128
  reads: str = 'prompt'
  dtype: jnp.dtype = jnp.float32
  unit: ClassVar[str] = 'bytes'

  @property
  def key(self) -> str:
    """Of its tokens in a batch."""
    return self.name or 'text'

  def requires(self, latents: Latents) -> Arrays:
    """Returns the tokens (m)."""
    return {self.key: array((self.length,), np.int32)}

  def prepare(self, sample: Fields) -> dict[str, np.ndarray]:
    """Turns a sample's 'caption' and, of videos, 'fps' into the batch's arrays, on the host."""
    size, tokens = self.tokens(self._text(sample))
    if size > self.length - 1:
      _warn_of_cut(size, self.length - 1, self.unit)
    return {self.key: tokens}

  def cut(self, sample: Fields) -> Cut | None:
    """Returns what it reads of a prompt that is too long; the caller says so."""
    text = self._text(sample)
    size, _ = self.tokens(text)
    if size < self.length:
      return None
    _warned.add((self.length - 1, self.unit))
    return Cut(size, self.length - 1, self.unit, self.head(text, self.length - 1), size + 1)

  def _text(self, sample: Fields) -> str:
    if self.reads not in READS:
      raise ConfigError(f'{self.name}.reads = {self.reads!r}; expected one of {", ".join(READS)}')
    return READS[self.reads](prompt_of(sample))

  @property
  def vocabulary_size(self) -> int:
    """Entries of the table of tokens."""
    return BYTE_VOCABULARY

  def tokens(self, text: str) -> tuple[int, Int[np.ndarray, ' m']]:
    """Returns how many tokens a text has without its end, and as many as are read."""
    size = len(text.encode('utf-8', errors='replace'))
    return size, byte_tokens(text, self.length)

  def head(self, text: str, size: int) -> str:
    """Returns the part of a text that so many tokens have room for."""
    return text.encode('utf-8', errors='replace')[:size].decode('utf-8', errors='ignore')

  @nn.compact
  def __call__(self, batch: Batch, drop: Bool[Array, ' b'], latents: Latents) -> Ports:
    if self.width % self.heads:
      raise ConfigError(f'{self.name}.width = {self.width} does not divide into {self.heads} heads')
    tokens = batch[self.key]
    empty = jnp.zeros((1, tokens.shape[1]), tokens.dtype).at[:, 0].set(EOS)
    tokens = jnp.where(drop[:, None], empty, tokens)
    mask = tokens != PAD
    x = self._embed(tokens, mask)
    for layer in range(self.depth):
      x = _EncoderLayer(self.heads, self.dtype, name=f'layer_{layer}')(x, mask)
    return Ports(context=self._project(x), context_mask=mask)

  def _embed(self, tokens: Int[Array, 'b m'], mask: Bool[Array, 'b m']) -> Float[Array, 'b m e']:
    table_axes, place_axes = ('vocabulary', 'embed'), ('positions', 'embed')
    table = parameter(self, 'table', _BYTES, table_axes, (self.vocabulary_size, self.width))
    places = parameter(self, 'places', _PLACES, place_axes, (self.length, self.width))
    x = (table[tokens] * mask[..., None]).astype(self.dtype)
    # A byte says little alone; a window of them is a word wherever it stands. (To words it does no
    # harm: what is compared differs in its tokens alone.)
    words = TemporalConv(self.width, _WINDOW, initializer=FAN_IN, dtype=self.dtype, name='words')
    x = x + words(x[:, :, None, None])[:, :, 0, 0]
    return x + places[None, : tokens.shape[1]].astype(self.dtype)

  def _project(self, x: Float[Array, 'b m e']) -> Float[Array, 'b m d']:
    x = RMSNorm(dtype=self.dtype, name='norm')(x)
    x = Linear(self.dim, ('hidden', 'embed'), dtype=self.dtype, name='project')(x)
    return LayerNorm(dtype=self.dtype, name='project_norm')(x)


def _warn_of_cut(size: int, length: int, unit: str) -> None:
  # Training prepares a sample in every epoch: a line for each would bury all others.
  if (length, unit) not in _warned:
    _warned.add((length, unit))
    _log.warning(
      'a prompt of %d %s was cut to the %d read; others are cut unsaid', size, unit, length
    )


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
