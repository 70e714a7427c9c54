"""CLIP's text and vision towers: token states and one vector (Movie Gen §3.1.4, §4).

The networks of Radford et al. (2021), as OpenAI, OpenCLIP and MetaCLIP publish them. The paper's
Long-prompt MetaCLIP is the text tower with a table of 256 positions; its vision tower reads faces.
"""

from typing import Annotated

import einops
import flax.linen as nn
import jax
import jax.numpy as jnp

from mgjax.core.configuration.keys import Fields
from mgjax.core.errors import ConfigError, check_one_of
from mgjax.core.settings import Count, Positive, Range, unpack
from mgjax.core.typing import Array, Bool, Float, Int
from mgjax.nn.attention import attend
from mgjax.nn.kernels.kernel import MASKED
from mgjax.nn.linear import FAN_IN, Linear, parameter, products, weight
from mgjax.nn.mlp import ACTIVATIONS, MLP
from mgjax.nn.norm import LayerNorm
from mgjax.nn.remat_scan import check_layers, stack
from mgjax.parallel.rules import place_tokens

POOLING = ('first_eos', 'largest')
# Of the pixels that OpenAI trained on; those who came later kept them.
MEAN = (0.48145466, 0.4578275, 0.40821073)
STD = (0.26862954, 0.26130258, 0.27577711)

_TABLE = jax.nn.initializers.normal(0.02)


class ClipText(nn.Module):
  """Prompts as tokens in context, each of which reads those before it, and as one vector.

  Raises ConfigError if there is no such pooling, end token or activation, the width does not divide
  into the heads, or there are more tokens than positions.
  """

  vocabulary: Positive
  dim: Positive  # width e
  depth: Positive
  heads: Positive
  mlp_dim: Positive  # FFN width f
  positions: Positive  # entries of the position table: 77, or 256 of Long-prompt MetaCLIP
  projection: Positive | None  # size p of the vector; None leaves it as wide as the tokens
  eos: Count  # the end token
  # Whose state becomes the vector: 'first_eos', the first end token's, or 'largest', that of the
  # largest token, which is the end token in OpenAI's vocabulary. Published configurations mean
  # 'largest' where their eos_token_id is 2. Padding is never read.
  pooling: str = 'first_eos'
  # Of `nn.mlp`: 'quick_gelu', OpenAI's and MetaCLIP's, or 'exact_gelu', OpenCLIP's.
  activation: str = 'quick_gelu'
  epsilon: Annotated[float, Range(above=0)] = 1e-5
  dtype: jnp.dtype = jnp.float32

  @nn.compact
  def __call__(
    self, tokens: Int[Array, 'b m'], mask: Bool[Array, 'b m']
  ) -> tuple[Float[Array, 'b m e'], Float[Array, 'b p']]:
    """Returns the states of all tokens, normalised, and the projected vector.

    Every row has an end token. `mask` is False where a token is padding, on either side; its states
    mean nothing.
    """
    check_one_of(f'model.pooling = {self.pooling!r}', self.pooling, POOLING)
    if (length := tokens.shape[1]) > self.positions:
      raise ConfigError(
        f'{length} tokens do not fit model.positions = {self.positions}; cut the prompts, or take '
        'the weights of a longer table'
      )
    if self.pooling == 'first_eos' and not 0 <= self.eos < self.vocabulary:
      raise ConfigError(f'model.eos = {self.eos} is none of {self.vocabulary} tokens')
    axes = ('vocabulary', 'embed'), ('positions', 'embed')
    table = parameter(self, 'table', _TABLE, axes[0], (self.vocabulary, self.dim))
    position_table = parameter(self, 'places', _TABLE, axes[1], (self.positions, self.dim))
    x = (table[tokens] + position_table[None, :length]).astype(self.dtype)
    before = jnp.tril(jnp.ones((length, length), bool))
    x = _layers(self)(place_tokens(x), before[None] & mask[:, None])
    states = LayerNorm(self.epsilon, self.dtype, name='norm')(x)
    pooled_index = self._place(tokens, mask)
    pooled = jnp.take_along_axis(states, pooled_index[:, None, None], axis=1)[:, 0]
    return states, _project(self, pooled)

  def _place(self, tokens: Int[Array, 'b m'], mask: Bool[Array, 'b m']) -> Int[Array, ' b']:
    if self.pooling == 'first_eos':
      return jnp.argmax((tokens == self.eos) & mask, axis=1)
    return jnp.argmax(jnp.where(mask, tokens, -1), axis=1)


class ClipVision(nn.Module):
  """Square images as tokens, one of them for the whole, and as one vector.

  Raises ConfigError if there is no such activation, the width does not divide into the heads, or
  the images are of another size or do not divide into patches.
  """

  size: Positive  # height and width in pixels
  patch: Positive
  dim: Positive  # width e
  depth: Positive
  heads: Positive
  mlp_dim: Positive  # FFN width f
  projection: Positive | None  # size p of the vector; None leaves it as wide as the tokens
  # Of `nn.mlp`: 'quick_gelu', OpenAI's and MetaCLIP's, or 'exact_gelu', OpenCLIP's.
  activation: str = 'quick_gelu'
  epsilon: Annotated[float, Range(above=0)] = 1e-5
  dtype: jnp.dtype = jnp.float32

  @nn.compact
  def __call__(
    self, images: Float[Array, 'b h w 3']
  ) -> tuple[Float[Array, 'b n e'], Float[Array, 'b p']]:
    """Returns the states of the class token and all patches, and the projected vector.

    The states are the last layer's own; only the vector goes through the last norm. Images are in
    [0, 1].
    """
    if images.shape[1:3] != (self.size, self.size) or self.size % self.patch:
      raise ConfigError(
        f'images of {images.shape[1]} x {images.shape[2]} pixels in patches of {self.patch}; '
        f'expected model.size = {self.size} on both sides, a multiple of the patch'
      )
    images = (images - jnp.array(MEAN)[None, None, None]) / jnp.array(STD)[None, None, None]
    x = _Patches(self.patch, self.dim, self.dtype, name='patch_in')(images)
    whole = parameter(self, 'class_token', _TABLE, ('embed',), (self.dim,))
    whole = jnp.broadcast_to(whole.astype(self.dtype), (x.shape[0], 1, self.dim))
    x = jnp.concatenate([whole, x], axis=1)
    places = parameter(self, 'places', _TABLE, ('positions', 'embed'), x.shape[1:])
    x = x + places[None].astype(self.dtype)
    x = LayerNorm(self.epsilon, self.dtype, name='norm_in')(x)
    states = _layers(self)(place_tokens(x), None)
    pooled = LayerNorm(self.epsilon, self.dtype, name='norm')(states[:, 0])
    return states, _project(self, pooled)


class _Patches(nn.Module):
  """A convolution whose kernel is as large as its stride, as one product."""

  patch: int
  dim: int
  dtype: jnp.dtype

  @nn.compact
  def __call__(self, images: Float[Array, 'b h w c']) -> Float[Array, 'b n d']:
    p = self.patch
    c = images.shape[-1]
    axes = ('window', 'window', 'channels_in', 'embed')
    kernel = weight(self, FAN_IN, axes, (p, p, c, self.dim)).reshape(p * p * c, self.dim)
    x = einops.rearrange(images, 'b (h i) (w j) c -> b (h w) (i j c)', i=p, j=p)
    return products(x, (kernel,), ('patch', 'embed'), self.dtype)[0]


def _layers(tower: ClipText | ClipVision):
  """Returns the tower's stack of layers: x, mask -> x."""
  if tower.dim % tower.heads:
    raise ConfigError(f'model.dim = {tower.dim} does not divide into {tower.heads} heads')
  check_one_of(f'model.activation = {tower.activation!r}', tower.activation, ACTIVATIONS)
  check_layers(tower, tower.depth)
  layers = stack(_Layer, depth=tower.depth, remat='nothing')(
    tower.heads, tower.mlp_dim, tower.activation, tower.epsilon, tower.dtype, name='layers'
  )
  return lambda x, mask: layers(x, mask)[0]


def _project(tower: ClipText | ClipVision, pooled: Float[Array, 'b e']) -> Float[Array, 'b p']:
  if tower.projection is None:
    return pooled
  return Linear(tower.projection, ('hidden', 'embed'), dtype=tower.dtype, name='project')(pooled)


class _Layer(nn.Module):
  heads: int
  mlp_dim: int
  activation: str
  epsilon: float
  dtype: jnp.dtype

  @nn.compact
  def __call__(
    self, x: Float[Array, 'b n d'], mask: Bool[Array, 'b n n'] | None
  ) -> tuple[Float[Array, 'b n d'], None]:
    def norm(name: str) -> nn.Module:
      return LayerNorm(self.epsilon, self.dtype, name=name)

    y = norm('self_norm')(x)
    x = x + _SelfAttention(self.heads, self.dtype, name='self_attention')(y, mask)
    y = norm('feed_norm')(x)
    feed = MLP(self.mlp_dim, self.dtype, self.activation, use_bias=True, name='feed_forward')
    return place_tokens(x + feed(y)), None


class _SelfAttention(nn.Module):
  """Multi-head attention with biases; of text each token reads those that its mask says."""

  heads: int
  dtype: jnp.dtype

  @nn.compact
  def __call__(
    self, x: Float[Array, 'b n d'], mask: Bool[Array, 'b n n'] | None
  ) -> Float[Array, 'b n d']:
    b, n, d = x.shape

    def project(name: str) -> Float[Array, 'b n g k']:
      y = Linear(d, ('embed', 'heads'), use_bias=True, dtype=self.dtype, name=name)(x)
      return y.reshape(b, n, self.heads, d // self.heads)

    query, key, value = map(project, ('query', 'key', 'value'))
    y = attend(query, key, value) if mask is None else _read(query, key, value, mask)
    out = Linear(d, ('heads', 'embed'), use_bias=True, dtype=self.dtype, name='out')
    return out(y.reshape(b, n, d))


def _read(
  q: Float[Array, 'b n g k'],
  k: Float[Array, 'b n g k'],
  v: Float[Array, 'b n g k'],
  mask: Bool[Array, 'b n n'],
) -> Float[Array, 'b n g k']:
  """Returns softmax(Q K^T / sqrt(k)) V where row n may read what its own mask says."""
  scores = jnp.einsum(
    'bngk,bmgk->bgnm', q * q.shape[-1] ** -0.5, k, preferred_element_type=jnp.float32
  )
  weights = jax.nn.softmax(jnp.where(mask[:, None], scores, MASKED), axis=-1)
  return jnp.einsum('bgnm,bmgk->bngk', weights.astype(v.dtype), v)


def clip_inputs(tower: ClipText | ClipVision) -> tuple[Array, ...]:
  """Returns what `init` of a tower wants beside a key."""
  if isinstance(tower, ClipVision):
    return (jnp.zeros((1, tower.size, tower.size, 3)),)
  return jnp.zeros((1, 1), jnp.int32), jnp.ones((1, 1), bool)


def make_clip_text(fields: Fields) -> ClipText:
  """Makes the module that a configuration's `model` describes; `dtype` by its name."""
  return unpack(ClipText, fields, 'model')


def make_clip_vision(fields: Fields) -> ClipVision:
  """Makes the module that a configuration's `model` describes; `dtype` by its name."""
  return unpack(ClipVision, fields, 'model')
