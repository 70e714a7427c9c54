"""The backbone: a Llama 3 transformer adapted to flow matching (Movie Gen §3.1.3, Table 1)."""

import math
from typing import Annotated

import flax.linen as nn
import jax.numpy as jnp

from mgjax.core.errors import ConfigError
from mgjax.core.settings import Count, Positive, Range
from mgjax.core.typing import Array, Float
from mgjax.models.backbone.block import Block
from mgjax.models.backbone.modulation import TimeModulation, modulate
from mgjax.models.backbone.position import Positions
from mgjax.models.conditioning.ports import Ports
from mgjax.nn.kernels.tiles import Tiles
from mgjax.nn.linear import PRODUCTS, ZEROS, Linear, lower_products, parameter
from mgjax.nn.mlp import FEED_FORWARD
from mgjax.nn.norm import NORMS
from mgjax.nn.patch import grid, patchify, unpatchify
from mgjax.nn.remat_scan import check_layers, stack
from mgjax.parallel.rules import ambient, place_rows, place_tokens, tokens_missing

BLOCKS: dict[str, type[Block]] = {'sequential': Block}


class Transformer(nn.Module):
  """u(X_t, ports, t): the velocity of latents X_t (b t h w c) at flow time t.

  Latents -> patches -> linear -> `depth` blocks -> norm, modulation, linear -> latents. The last
  linear map starts at zero, so an untrained model answers zero everywhere.

  Attributes:
    dim: model width d.
    depth: blocks l.
    heads: attention heads g, of size d / g.
    mlp_dim: FFN width f.
    positions: entries of the position tables along t, h, w, counted in patches.
    patch: latents of a token along t, h, w.
    block: a name in `BLOCKS`: what the parts of a layer read of each other.
    feed_forward: 'swiglu', as Llama 3; 'silu' or 'gelu', as DiT.
    norm: 'rms', as Llama 3, or 'layer', as DiT.
    affine: whether norms have weights of their own; DiT's have not (in the paper's DiT not in
      public sources).
    bias: whether the linear maps of attention and FFN have biases, as DiT's.
    depthwise: whether tokens are convolved with their neighbours, 3 x 3 x 3, channel by channel,
      before self-attention and before the FFN. Not in the paper; small models that see few clips
      draw whole things with it (docs/experiments/solids_model_ranking.md). SANA (Xie et al. 2024,
      arXiv 2410.10629) has one inside its FFN.
    epsilon: is added to what norms divide by the root of. Not in public sources.
    remat: what the backward pass computes again (`nn/remat_scan.py`).
    attention: one of `nn.attention.ATTENTION_KERNELS`; 'auto' goes by the device.
    exchange: one of `nn.attention.EXCHANGES`, how devices that share a sequence attend.
    tile: patches of a tile along t, h, w, of which self-attention reads windows
      (`nn/kernels/tiles.py`); () reads everything, as the paper does.
    window: tiles that are read along t, h, w; odd.
    chosen: further tiles that each head reads, by what they hold.
    products: how the large maps of layers multiply, 'dtype' in the compute type, and else a kind of
      `nn.linear.PRODUCTS`: 'int8', 'fp8', with '_both' in the backward pass as well.
    unroll: layers a scan step.
    time_unit: how much time has the waves of 1: their steepest is 1000 / time_unit, which a
      derivative by time sees.
    dtype: compute type.

  Raises:
    ConfigError: the width does not divide into the heads, or these over `tensor`; there is no such
      block, feed-forward network or norm.
  """

  dim: Positive
  depth: Positive
  heads: Positive
  mlp_dim: Positive
  positions: tuple[Positive, Positive, Positive]
  patch: tuple[Positive, Positive, Positive] = (1, 2, 2)
  block: str = 'sequential'
  feed_forward: str = 'swiglu'
  norm: str = 'rms'
  affine: bool = True
  bias: bool = False
  depthwise: bool = False
  epsilon: Annotated[float, Range(above=0)] = 1e-5
  remat: str = 'nothing'
  attention: str = 'auto'
  exchange: str = 'auto'
  tile: tuple[Positive, ...] = ()
  window: tuple[Positive, ...] = (3, 3, 3)
  chosen: Count = 0
  products: str = 'dtype'
  unroll: Positive = 1
  time_unit: Annotated[float, Range(above=0)] = 1.0
  dtype: jnp.dtype = jnp.float32

  @property
  def stream_dtype(self) -> jnp.dtype:
    """The type of the sums that layers add to."""
    return self.dtype

  def tiles(self, sizes: tuple[int, int, int]) -> Tiles | None:
    """Returns the tiles of a grid of patches; None where everything is read.
    Raises ConfigError if a tile or a window has not three sizes, a window has no middle, or there
    are no tiles to choose from.
    """
    if not self.tile:
      if self.chosen:
        raise ConfigError(
          f'model.chosen = {self.chosen} without tiles; give model.tile, as in (4, 8, 8)'
        )
      return None
    for name, value in (('tile', self.tile), ('window', self.window)):
      if len(value) != 3:
        raise ConfigError(f'model.{name} = {value}; expected sizes along t, h, w, as in (3, 3, 3)')
    return Tiles(sizes, self.tile, self.window, self.chosen)

  @nn.compact
  def __call__(
    self,
    x: Float[Array, 'b t h w c'],
    time: Float[Array, ' b'],
    ports: Ports,
    tap: int | None = None,
  ) -> Float[Array, 'b t h w c'] | tuple[Float[Array, 'b t h w c'], Float[Array, 'b n d']]:
    """Returns the velocity; with `tap` also the tokens behind that layer, counted from 1."""
    if tap is not None and not 1 <= tap <= self.depth:
      raise ConfigError(f'tap = {tap}; expected a layer, from 1 to model.depth = {self.depth}')
    if self.dim % self.heads:
      raise ConfigError(f'model.dim = {self.dim} does not divide into {self.heads} heads')
    choices = {'block': BLOCKS, 'feed_forward': FEED_FORWARD, 'norm': NORMS, 'products': PRODUCTS}
    for name, known in choices.items():
      if getattr(self, name) not in known:
        raise ConfigError(f'model.{name} = {getattr(self, name)!r}; expected {" or ".join(known)}')
    mesh = ambient()
    if mesh is not None and self.heads % mesh.shape['tensor']:
      fitting = [str(n) for n in range(1, self.heads + 1) if self.heads % n == 0]
      raise ConfigError(
        f'{self.heads} heads do not divide over mesh.tensor = {mesh.shape["tensor"]}; take one of '
        f'{", ".join(fitting)}'
      )
    if any(port is not None for port in (ports.channels, ports.picture, ports.known)):
      raise ConfigError(
        "model.kind = 'movie_gen' with a conditioning of Wan's; expected 'frames' for known frames"
      )
    sizes = grid(x.shape, self.patch)
    count = math.prod(sizes)
    # So that the devices of a mesh share the tokens equally; once here, not in every layer.
    missing = tokens_missing(count)
    valid = (jnp.arange(count + missing) < count)[None] if missing else None
    valid = None if valid is None else jnp.broadcast_to(valid, (x.shape[0], count + missing))

    def fill(tokens: Float[Array, 'b n _d']) -> Float[Array, 'b _n _d']:
      return place_tokens(jnp.pad(tokens, ((0, 0), (0, missing), (0, 0))))

    patches = fill(patchify(x, self.patch))
    tokens = Linear(self.dim, ('patch', 'embed'), dtype=self.dtype, name='patch_in')(patches)
    if ports.tokens is not None:
      tokens = tokens + fill(ports.tokens.astype(tokens.dtype))
    positions = Positions(self.positions, self.dim, name='positions')(sizes, ports.offset)
    # On a mesh one copy a row: their gradients then meet once, and not in every layer.
    if mesh is not None and ports.offset is None:
      positions = jnp.repeat(positions, x.shape[0], axis=0)
    positions = fill(positions)
    modulate_by = TimeModulation(self.dim, self.time_unit, self.dtype, name='time')
    embedding, modulation = modulate_by(time, ports.vector)
    context = None if ports.context is None else ports.context.astype(self.dtype)
    check_layers(self, self.depth)
    layers = stack(
      BLOCKS[self.block],
      depth=self.depth,
      remat=self.remat,
      unroll=self.unroll,
      tapped=tap is not None,
    )(
      self.heads,
      self.mlp_dim,
      self.epsilon,
      self.attention,
      self.exchange,
      self.feed_forward,
      self.norm,
      self.affine,
      self.bias,
      sizes if self.depthwise else None,
      self.tiles(sizes),
      self.dtype,
      name='layers',
    )
    carry = tokens = place_tokens(tokens)
    if tap is not None:
      carry = tokens, jnp.zeros_like(tokens), jnp.int32(tap)
    with lower_products(self.products):
      carry, _ = layers(
        carry,
        modulation,
        positions,
        context,
        ports.context_mask,
        valid,
        [group.opened(self.dtype) for group in ports.gated],
      )
    tokens, tapped, _ = carry if tap is not None else (carry, None, None)

    table = parameter(self, 'modulation', ZEROS, ('modulation', 'embed'), (2, self.dim))
    final = embedding[:, None] + table[None].astype(self.dtype)
    shift, scale = jnp.split(final, 2, axis=1)
    norm = NORMS[self.norm](self.epsilon, self.dtype, self.affine, name='norm')
    tokens = modulate(norm(tokens), shift, scale)
    values = math.prod(self.patch) * x.shape[-1]
    # The velocity leaves in float32: solvers add fifty of them.
    y = Linear(values, ('embed', 'patch'), initializer=ZEROS, name='patch_out')(tokens)
    velocity = unpatchify(place_rows(y)[:, :count], sizes, self.patch)
    return velocity if tapped is None else (velocity, place_rows(tapped)[:, :count])
