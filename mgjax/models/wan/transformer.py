"""The transformer of Wan 2.1 and 2.2 (Wan Team 2025, arXiv 2503.20314) as a backbone of mgjax.

Weights by the names of diffusers and of the original code are read by `mgjax.models.wan.names`.
"""

import math
from typing import Annotated, ClassVar

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.ad_checkpoint import checkpoint_name

from mgjax.core.errors import ConfigError
from mgjax.core.settings import Count, Positive, Range
from mgjax.core.typing import Array, Bool, Float
from mgjax.models.conditioning.ports import Ports
from mgjax.models.wan.attention import WanAttention
from mgjax.models.wan.rotary import Rotation, make_rotation, waves
from mgjax.nn.linear import ZEROS, Linear, lower_products, parameter
from mgjax.nn.mlp import MLP
from mgjax.nn.norm import LayerNorm
from mgjax.nn.patch import grid, patchify, unpatchify
from mgjax.nn.remat_scan import check_layers, stack
from mgjax.parallel.rules import place_rows, place_tokens, tokens_missing

FREQUENCIES = 256  # of the waves of the time
NOISE = 1000.0  # the time of pure noise, in Wan's units
IMAGE_EPSILON = 1e-5  # of the norms around the map of a picture's tokens
_LAST = 1e-6  # of the flow time that is left, at least


def _level(time: Float[Array, ' b']) -> Float[Array, ' b']:
  """Returns the time as Wan counts it; whole numbers come out as such, whatever 1 - t rounds."""
  level = NOISE * (1 - time.astype(jnp.float32))
  whole = jnp.round(level)
  return jnp.where(jnp.abs(level - whole) < 1e-4, whole, level)


def _by_token(
  modulation: Float[Array, 'b r _k d'],
  table: Float[Array, '_k d'],
  clean: Bool[Array, 'b n'] | None,
) -> list[Float[Array, 'b _n d']]:
  """Returns the k rows of modulation + table, for all tokens or, if some are clean, for each.

  Of r = 2 the first is at the time of X_t, the second at that of data.
  """
  rows = modulation + table[None, None]
  parts = [rows[:, :, index] for index in range(rows.shape[2])]
  if clean is None:
    return parts
  return [jnp.where(clean[..., None], part[:, 1:], part[:, :1]) for part in parts]


class WanBlock(nn.Module):
  """One layer; x is float32, whatever the compute type of its maps.

  x <- x + gate_a * SelfAttention(LN(x) (1 + scale_a) + shift_a)
  x <- x + CrossAttention(LN(x) w + b, text, picture)
  x <- x + gate_f * W_2 gelu(W_1 (LN(x) (1 + scale_f) + shift_f))

  where shift, scale, gate = shared modulation + this layer's table, in float32. Of `clean` tokens,
  which are of known latents, that modulation is at the time of data.
  """

  heads: int
  mlp_dim: int
  epsilon: float
  attention: str
  exchange: str
  dtype: jnp.dtype

  @nn.compact
  def __call__(
    self,
    x: Float[Array, 'b n d'],
    modulation: Float[Array, 'b r 6 d'],
    rotation: Rotation,
    text: Float[Array, 'b m d'],
    picture: Float[Array, 'b _m d'] | None,
    clean: Bool[Array, 'b n'] | None,
    valid: Bool[Array, 'b n'] | None,
  ) -> tuple[Float[Array, 'b n d'], None]:
    table = parameter(self, 'modulation', ZEROS, ('modulation', 'embed'), (6, x.shape[-1]))
    shift_a, scale_a, gate_a, shift_f, scale_f, gate_f = _by_token(modulation, table, clean)

    def attention(name: str) -> WanAttention:
      return WanAttention(
        self.heads, self.epsilon, self.attention, self.exchange, self.dtype, name=name
      )

    def modulated(name: str, shift: Array, scale: Array) -> Array:
      y = LayerNorm(self.epsilon, jnp.float32, affine=False, name=name)(x)
      return (y * (1 + scale) + shift).astype(self.dtype)

    x = checkpoint_name(x, 'inputs')
    y = modulated('self_norm', shift_a, scale_a)
    x = x + gate_a * attention('self_attention')(y, rotation=rotation, valid=valid)
    y = LayerNorm(self.epsilon, self.dtype, name='cross_norm')(x)
    x = x + attention('cross_attention')(y, context=text, picture=picture)
    y = modulated('feed_norm', shift_f, scale_f)
    y = MLP(self.mlp_dim, self.dtype, 'gelu', use_bias=True, name='feed_forward')(y)
    return place_tokens(x + gate_f * y), None


class WanTransformer(nn.Module):
  """u(X_t, ports, t): the velocity of latents X_t (b t h w c) at flow time t.

  Wan answers noise - data at the time 1000 (1 - t); the velocity is the negative of that. It reads
  the states of a text encoder, which `ports.context` has as they are: padding is zeros and is not
  masked, as in training. Models that animate pictures also read `ports.channels` and the states of
  CLIP in `ports.picture` (2.1), the channels alone (2.2), or `ports.known` (5B).

  Attributes:
    dim: model width d.
    depth: layers l.
    heads: attention heads g, of size d / g.
    mlp_dim: width f of the feed-forward network.
    channels_out: channels of what it answers.
    text_dim: width of the text encoder's states.
    patch: latents of a token along t, h, w.
    picture_positions: rows of the table that is added to the states of pictures, as many as there
      are states; 0 where there is no table. Models of a first and a last picture have one.
    epsilon: is added to what norms divide by the root of.
    remat: what the backward pass computes again (`nn/remat_scan.py`).
    attention: one of `nn.attention.KERNELS`; 'auto' goes by the device.
    exchange: one of `nn.attention.EXCHANGES`, how devices that share a sequence attend.
    products: how the large maps of layers multiply, a kind of `nn.linear.PRODUCTS`.
    unroll: layers a scan step.
    dtype: compute type of the maps; norms, modulation and the sums of layers are float32.

  Raises:
    ConfigError: the width does not divide into the heads, or there is no text to read.
  """

  dim: Positive
  depth: Positive
  heads: Positive
  mlp_dim: Positive
  channels_out: Positive = 16
  text_dim: Positive = 4096
  patch: tuple[Positive, Positive, Positive] = (1, 2, 2)
  picture_positions: Count = 0
  epsilon: Annotated[float, Range(above=0)] = 1e-6
  remat: str = 'nothing'
  attention: str = 'auto'
  exchange: str = 'auto'
  products: str = 'dtype'
  unroll: Positive = 1
  dtype: jnp.dtype = jnp.float32

  # What is counted and checked of every backbone.
  positions: ClassVar[tuple[int, int, int]] = (1024, 1024, 1024)
  feed_forward: ClassVar[str] = 'gelu'
  affine: ClassVar[bool] = False
  stream_dtype: ClassVar[jnp.dtype] = jnp.dtype(jnp.float32)

  def tiles(self, sizes: tuple[int, int, int]) -> None:
    """Returns None: every token reads all of them."""

  @nn.compact
  def __call__(
    self,
    x: Float[Array, 'b t h w c'],
    time: Float[Array, ' b'],
    ports: Ports,
    tap: int | None = None,
  ) -> Float[Array, 'b t h w c'] | tuple[Float[Array, 'b t h w c'], Float[Array, 'b n d']]:
    """Returns the velocity; with `tap` also the tokens behind that layer, counted from 1."""
    if self.dim % self.heads:
      raise ConfigError(f'model.dim = {self.dim} does not divide into {self.heads} heads')
    if ports.context is None:
      raise ConfigError('Wan reads states of a text encoder; give it a conditioning of text')
    if ports.gated or ports.offset is not None:
      raise ConfigError(
        'Wan reads text, pictures, and what is added to its tokens or to the embedding of its '
        'time; a conditioning of another kind was given'
      )
    sizes = grid(x.shape, self.patch)
    count = math.prod(sizes)
    missing = tokens_missing(count)  # so that the devices of a mesh share the tokens equally
    valid = None
    if missing:
      valid = jnp.broadcast_to(jnp.arange(count + missing) < count, (len(x), count + missing))

    def linear(size: int, name: str, dtype: jnp.dtype) -> Linear:
      return Linear(size, ('embed', 'embed'), use_bias=True, dtype=dtype, name=name)

    latents = x
    clean = None  # tokens
    if ports.known is not None:
      latents = jnp.where(_frames(ports.known.mask), ports.known.latents.astype(x.dtype), x)
      clean = jnp.repeat(ports.known.mask[:, :: self.patch[0]], sizes[1] * sizes[2], axis=1)
      clean = jnp.pad(clean, ((0, 0), (0, missing)))
    if ports.channels is not None:
      latents = jnp.concatenate([latents, ports.channels.astype(x.dtype)], axis=-1)
    patches = jnp.pad(patchify(latents, self.patch), ((0, 0), (0, missing), (0, 0)))
    into = Linear(self.dim, ('patch', 'embed'), use_bias=True, dtype=self.dtype, name='patch_in')
    tokens = into(place_tokens(patches)).astype(jnp.float32)
    if ports.tokens is not None:
      tokens = tokens + jnp.pad(ports.tokens, ((0, 0), (0, missing), (0, 0)))
    levels = _level(time)[:, None]
    if clean is not None:
      levels = jnp.concatenate([levels, jnp.zeros_like(levels)], axis=1)
    features = waves(levels.reshape(-1), FREQUENCIES).reshape(*levels.shape, FREQUENCIES)
    hidden = jax.nn.silu(linear(self.dim, 'time_in', jnp.float32)(features))
    embedding = linear(self.dim, 'time_out', jnp.float32)(hidden)
    if ports.vector is not None:
      embedding = embedding + ports.vector.astype(jnp.float32)[:, None]
    shared = linear(6 * self.dim, 'time_shared', jnp.float32)(jax.nn.silu(embedding))
    shared = shared.reshape(*levels.shape, 6, self.dim)
    text = linear(self.dim, 'text_in', self.dtype)(ports.context.astype(self.dtype))
    text = linear(self.dim, 'text_out', self.dtype)(jax.nn.gelu(text))
    picture = None if ports.picture is None else self._mapped(ports.picture)
    rotation = make_rotation(sizes, self.dim // self.heads)
    rotation = Rotation(*(jnp.pad(table, ((0, missing), (0, 0))) for table in rotation))
    check_layers(self, self.depth)
    layers = stack(
      WanBlock, depth=self.depth, remat=self.remat, unroll=self.unroll, tapped=tap is not None
    )(
      self.heads,
      self.mlp_dim,
      self.epsilon,
      self.attention,
      self.exchange,
      self.dtype,
      name='layers',
    )
    start = tokens if tap is None else (tokens, tokens, jnp.int32(tap))
    with lower_products(self.products):
      end, _ = layers(start, shared, rotation, text, picture, clean, valid)
    tokens, tapped, _ = end if tap is not None else (end, None, None)
    table = parameter(self, 'modulation', ZEROS, ('modulation', 'embed'), (2, self.dim))
    shift, scale = _by_token(embedding[:, :, None], table, clean)
    tokens = LayerNorm(self.epsilon, jnp.float32, affine=False, name='norm')(tokens)
    out = Linear(
      math.prod(self.patch) * self.channels_out,
      ('embed', 'patch'),
      use_bias=True,
      dtype=jnp.float32,
      name='patch_out',
    )
    answer = place_rows(out(tokens * (1 + scale) + shift))[:, :count]
    velocity = -unpatchify(answer, sizes, self.patch)
    if ports.known is not None:
      left = jnp.maximum(1 - time, _LAST).reshape(-1, 1, 1, 1, 1)
      there = (ports.known.latents.astype(x.dtype) - x) / left
      velocity = jnp.where(_frames(ports.known.mask), there.astype(velocity.dtype), velocity)
    return velocity if tapped is None else (velocity, place_rows(tapped)[:, :count])

  def _mapped(self, states: Float[Array, 'b _n i']) -> Float[Array, 'b _n d']:
    """Returns LN(W_2 gelu(W_1 LN(states + table))), what cross-attention reads of pictures."""
    width = states.shape[-1]
    if self.picture_positions:
      if states.shape[1] != self.picture_positions:
        raise ConfigError(
          f'{states.shape[1]} states of pictures; expected model.picture_positions = '
          f'{self.picture_positions}, those of a first and a last picture'
        )
      shape = self.picture_positions, width
      positions = parameter(self, 'image_positions', ZEROS, ('positions', 'embed'), shape)
      states = states + positions[None].astype(states.dtype)
    y = LayerNorm(IMAGE_EPSILON, self.dtype, name='image_norm_in')(states)
    axes = ('embed', 'embed')
    y = Linear(width, axes, use_bias=True, dtype=self.dtype, name='image_in')(y)
    y = jax.nn.gelu(y, approximate=False)
    y = Linear(self.dim, axes, use_bias=True, dtype=self.dtype, name='image_out')(y)
    return LayerNorm(IMAGE_EPSILON, self.dtype, name='image_norm_out')(y)


def _frames(mask: Bool[Array, 'b t']) -> Bool[Array, 'b t 1 1 1']:
  return mask[..., None, None, None]
