"""Encoders of the T5 family: T5, T5 1.1, UL2, ByT5, UMT5 (Movie Gen §3.1.4, §6).

Raffel et al. (2020): no positions but a learned attention bias for every distance, no biases
elsewhere, norms before each half of a layer. An encoder that reads prompts is frozen.
"""

import functools
import math
from typing import Annotated

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from mgjax.core.configuration.keys import Fields
from mgjax.core.errors import ConfigError, check_one_of
from mgjax.core.settings import Positive, Range, unpack
from mgjax.core.typing import Array, Bool, Float, Int
from mgjax.nn.kernels.kernel import MASKED
from mgjax.nn.linear import FAN_IN, Kernel, Linear, parameter, products
from mgjax.nn.mlp import ACTIVATIONS, MLP, GatedMLP
from mgjax.nn.norm import RMSNorm
from mgjax.nn.remat_scan import check_layers, stack
from mgjax.parallel.rules import place_tokens

_TABLE = jax.nn.initializers.normal(1.0)
_BIAS = jax.nn.initializers.normal(0.1)


class T5Encoder(nn.Module):
  """Tokens (b m) -> states (b m e); with its mask, what a conditioning reads.

  x <- x + softmax(Q K^T + bias(m' - m)) V W_out, of RMSNorm(x); not divided by sqrt(k) x <- x +
  feed_forward(RMSNorm(x))

  Padding may stand at either end: distances alone count. States of padding mean nothing.

  Attributes:
    head_size: of one head; heads * head_size need not be `dim`.
    mlp_dim: FFN width f.
    activation: 'gelu' (by tanh), 'silu' or 'relu'.
    gated: whether the FFN has a gate.
    buckets: entries of the table of biases.
    distance: from which on all are one bucket.
    bias_in_every_layer: a table each, as UMT5; otherwise one for all.
    unroll: layers a scan step.
    dtype: compute type; norms and softmax are float32. bfloat16 does, float16 would overflow.

  Raises:
    ConfigError: there is no such activation, or buckets are not four times fewer than distances.
  """

  vocabulary: Positive
  dim: Positive
  depth: Positive
  heads: Positive
  head_size: Positive
  mlp_dim: Positive
  activation: str = 'gelu'
  gated: bool = True
  buckets: Positive = 32
  distance: Positive = 128
  bias_in_every_layer: bool = False
  epsilon: Annotated[float, Range(above=0)] = 1e-6
  unroll: Positive = 1
  dtype: jnp.dtype = jnp.float32

  @nn.compact
  def __call__(self, tokens: Int[Array, 'b m'], mask: Bool[Array, 'b m']) -> Float[Array, 'b m e']:
    check_one_of(f'model.activation = {self.activation!r}', self.activation, ACTIVATIONS)
    if self.buckets % 4 or not 0 < self.buckets // 4 < self.distance:
      raise ConfigError(
        f'model.buckets = {self.buckets} and model.distance = {self.distance}; expected a multiple '
        'of 4, and a quarter of it below the distance'
      )
    # In pieces on a mesh, unlike other tables: a quarter of a million words are gigabytes.
    shape = (self.vocabulary, self.dim)
    axes = ('vocabulary', 'embed')
    table = Kernel(shape, axes, _TABLE, name='tokens')()
    x = place_tokens(jnp.take(table.astype(self.dtype), tokens, axis=0))
    near = jnp.asarray(buckets_of(tokens.shape[1], self.buckets, self.distance))
    bias = None if self.bias_in_every_layer else _bias(self, near, self.buckets, self.heads)
    check_layers(self, self.depth)
    layers = stack(_Layer, depth=self.depth, remat='nothing', unroll=self.unroll)(
      self.heads,
      self.head_size,
      self.mlp_dim,
      self.activation,
      self.gated,
      self.buckets,
      self.epsilon,
      self.dtype,
      name='layers',
    )
    x, _ = layers(x, bias, near, mask)
    return RMSNorm(self.epsilon, self.dtype, name='norm')(x)


class _Layer(nn.Module):
  heads: int
  head_size: int
  mlp_dim: int
  activation: str
  gated: bool
  buckets: int
  epsilon: float
  dtype: jnp.dtype

  @nn.compact
  def __call__(
    self,
    x: Float[Array, 'b m e'],
    bias: Float[Array, 'g m m'] | None,
    near: Int[Array, 'm m'],
    mask: Bool[Array, 'b m'],
  ) -> tuple[Float[Array, 'b m e'], None]:
    if bias is None:
      bias = _bias(self, near, self.buckets, self.heads)
    y = RMSNorm(self.epsilon, self.dtype, name='self_norm')(x)
    x = x + _Attention(self.heads, self.head_size, self.dtype, name='attention')(y, bias, mask)
    y = RMSNorm(self.epsilon, self.dtype, name='feed_norm')(x)
    network = GatedMLP if self.gated else MLP
    x = x + network(self.mlp_dim, self.dtype, self.activation, name='feed_forward')(y)
    return place_tokens(x), None


class _Attention(nn.Module):
  """softmax(Q K^T + bias) V; all scores at once, for prompts are short."""

  heads: int
  head_size: int
  dtype: jnp.dtype

  @nn.compact
  def __call__(
    self, x: Float[Array, 'b m e'], bias: Float[Array, 'g m m'], mask: Bool[Array, 'b m']
  ) -> Float[Array, 'b m e']:
    axes = ('embed', 'heads')
    shape = (x.shape[-1], self.heads * self.head_size)
    # What others divide scores by, T5 has in the initial weights.
    small = jax.nn.initializers.variance_scaling(1 / self.head_size, 'fan_in', 'truncated_normal')
    kernels = [
      Kernel(shape, axes, initial, name=name)()
      for name, initial in (('query', small), ('key', FAN_IN), ('value', FAN_IN))
    ]
    ys = products(x, kernels, axes, self.dtype)
    q, k, v = (y.reshape(*y.shape[:2], self.heads, self.head_size) for y in ys)
    scores = jnp.einsum('bngk,bmgk->bgnm', q, k, preferred_element_type=jnp.float32)
    scores = jnp.where(mask[:, None, None], scores + bias[None], MASKED)
    weights = jax.nn.softmax(scores, axis=-1).astype(self.dtype)
    y = jnp.einsum('bgnm,bmgk->bngk', weights, v).reshape(*x.shape[:2], -1)
    return Linear(x.shape[-1], ('heads', 'embed'), dtype=self.dtype, name='out')(y)


def _bias(module: nn.Module, near: Int[Array, 'm m'], buckets: int, heads: int):
  """Declares 'position_bias' and returns the bias (g m m), float32, of every distance."""
  table = parameter(module, 'position_bias', _BIAS, ('positions', 'heads'), (buckets, heads))
  return jnp.moveaxis(table.astype(jnp.float32)[near], -1, 0)


@functools.lru_cache(maxsize=64)
def buckets_of(length: int, buckets: int, distance: int) -> np.ndarray:
  """Returns which bias a query (row) has for a key (column), (m m) int32.

  Half of the buckets are for keys behind the query. Of a half, the first half is for one distance
  each, the others for distances growing as exp up to `distance`, the last for all beyond.
  """
  half = buckets // 2
  exact = half // 2
  ahead = np.arange(length)[None] - np.arange(length)[:, None]
  far = np.abs(ahead)
  # In float32, as published models were trained: distances on an edge fall where rounding says.
  ratio = np.log(np.maximum(far, 1).astype(np.float32) / np.float32(exact))
  steps = ratio / np.float32(math.log(distance / exact)) * np.float32(half - exact)
  large = np.minimum(exact + steps.astype(np.int32), half - 1)
  return (np.where(far < exact, far, large) + half * (ahead > 0)).astype(np.int32)


def make_t5(fields: Fields) -> T5Encoder:
  """Makes the encoder that `config.model` describes; `dtype` by its name."""
  return unpack(T5Encoder, fields, 'model')


def t5_inputs() -> tuple[Array, Array]:
  """Returns what `T5Encoder.init` wants beside a key."""
  return jnp.zeros((1, 1), jnp.int32), jnp.ones((1, 1), bool)
