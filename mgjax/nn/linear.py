"""Linear maps whose parameters carry logical axes."""

import contextlib
import contextvars
import functools
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import lax

from mgjax.core.derivatives import is_forward_mode, with_backward
from mgjax.core.errors import CheckpointError
from mgjax.core.precision import BASE, LORA_A, LORA_B, PARAMETER, QUANTISED, SCALE
from mgjax.core.typing import Array, Float
from mgjax.parallel.gather import weighted
from mgjax.parallel.rules import place_whole

# Fan-in scaling lets one setting train every width; at d = 6144 it is a standard deviation of
# 0.0128, beside the 0.01 that one public recipe of the 30B model uses (not in public sources).
FAN_IN = jax.nn.initializers.variance_scaling(1.0, 'fan_in', 'truncated_normal')
ZEROS = jax.nn.initializers.zeros
ONES = jax.nn.initializers.ones

_LOWER_TYPES = {  # a type of one byte, its largest number, what its products are summed in
  'int8': (jnp.int8, 127.0, jnp.int32),
  'fp8': (jnp.float8_e4m3fn, 448.0, jnp.float32),
}
_LOWER = contextvars.ContextVar('lower_products', default='dtype')
_LARGE = {('embed', 'heads'), ('heads', 'embed'), ('embed', 'hidden'), ('hidden', 'embed')}


class Quantised(NamedTuple):
  """A weight W ~ q s of one byte a number, q (in, out), s (out,); see `nn/quantize.py`."""

  values: Array
  scale: Array


class Adapted(NamedTuple):
  """A weight W + A B whose W is frozen, A (in, r), B (r, out); see `nn/lora.py`."""

  base: Array | Quantised
  a: Array
  b: Array


Weight = Float[Array, 'i o'] | Quantised | Adapted
Weights = tuple[Weight, Float[Array, ' o'] | None]  # W and b


def parameter(module: nn.Module, name: str, init, axes: tuple[str, ...], shape: tuple[int, ...]):
  """Declares a float32 parameter with one logical name (`core/axes.py`) an axis.

  It comes back whole, on a mesh too: this is for vectors and tables; see `weight`.
  """
  return place_whole(_declare(module, name, init, axes, shape))


def weight(module: nn.Module, init, axes: tuple[str, ...], shape: tuple[int, ...]):
  """Declares 'kernel', the float32 weight of a product: outputs last, inputs last but one.

  On a mesh it stays in its pieces; `parallel.gather.weighted` makes products of it. Parameters of
  sampling may have it `Quantised`, and those of a model with adapters `Adapted`; kernels of
  convolutions have theirs added.
  """
  found = _declare(module, 'kernel', init, axes, shape)
  if isinstance(found, Adapted) and len(shape) > 2:
    return found.base + jnp.dot(found.a, found.b)
  return found


def _declare(module: nn.Module, name: str, init, axes: tuple[str, ...], shape: tuple[int, ...]):
  if module.is_initializing():
    found = module.param(name, nn.with_logical_partitioning(init, axes), shape, PARAMETER)
    return _held(found)
  # Flax would trace `init` to check a shape, each time: a quarter of what tracing a model takes.
  found = nn.unbox(module.get_variable('params', name))
  for part, array, wanted in _parts(name, found, shape):
    if array is None or jnp.shape(array) != wanted:
      given = 'missing' if array is None else f'of shape {jnp.shape(array)}'
      raise CheckpointError(
        f'the weights are not of this model: {"/".join((*module.path, part))} is {given}, expected '
        f'shape {wanted}; use the configuration that they were trained with, or get them again'
      )
  return _held(found)


def _parts(
  name: str, found: Any, shape: tuple[int, ...]
) -> Iterator[tuple[str, Array | None, tuple[int, ...]]]:
  """Yields the arrays that make a parameter, None for a missing one, with their expected shapes."""
  if not isinstance(found, Mapping):
    yield name, found, shape
  elif BASE in found:  # adapters fit it since they were attached
    yield from _parts(name, found[BASE], shape)
  else:
    yield f'{name}/{QUANTISED}', found.get(QUANTISED), shape
    yield f'{name}/{SCALE}', found.get(SCALE), (*shape[:-2], *shape[-1:])


def _held(found: Any) -> Array | Quantised | Adapted:
  if not isinstance(found, Mapping):
    return jnp.asarray(found)
  if QUANTISED in found:
    return Quantised(found[QUANTISED], place_whole(found[SCALE]))
  return Adapted(_held(found[BASE]), place_whole(found[LORA_A]), place_whole(found[LORA_B]))


class Kernel(nn.Module):
  """The weight W (in, out) of one of several maps that `products` makes of x, by its own name."""

  shape: tuple[int, int]
  axes: tuple[str, str]
  initializer: jax.nn.initializers.Initializer = FAN_IN

  @nn.compact
  def __call__(self) -> Float[Array, 'i o']:
    return weight(self, self.initializer, self.axes, self.shape)


class Map(nn.Module):
  """The weight W (in, out) and, with `use_bias`, b of one of several maps that `linears` makes."""

  shape: tuple[int, int]
  axes: tuple[str, str]
  use_bias: bool = False

  @nn.compact
  def __call__(self) -> Weights:
    kernel = weight(self, FAN_IN, self.axes, self.shape)
    if not self.use_bias:
      return kernel, None
    return kernel, parameter(self, 'bias', ZEROS, self.axes[1:], self.shape[1:])


class Linear(nn.Module):
  """y = x W (+ b) over the last axis; W is stored (in, out) in float32.

  Attributes:
    axes: logical names of W's two axes.
    use_bias: adds b; the Llama block has none, the DiT block has (Movie Gen Table 9).
  """

  features: int
  axes: tuple[str, str]
  use_bias: bool = False
  initializer: jax.nn.initializers.Initializer = FAN_IN
  dtype: jnp.dtype = jnp.float32

  @nn.compact
  def __call__(self, x: Float[Array, '... i']) -> Float[Array, '... o']:
    shape = (x.shape[-1], self.features)
    kernel = weight(self, self.initializer, self.axes, shape)
    (y,) = products(x, (kernel,), self.axes, self.dtype)
    if self.use_bias:
      y = _plus(y, parameter(self, 'bias', ZEROS, self.axes[1:], (self.features,)))
    return y


def linears(
  x: Float[Array, '... i'], maps: Sequence[Weights], axes: tuple[str, str], dtype: jnp.dtype
) -> list[Float[Array, '... _o']]:
  """Returns x W (+ b) for every `Map`, reading `x` once, as `products`."""
  kernels, biases = zip(*maps, strict=True)
  ys = products(x, kernels, axes, dtype)
  return [y if b is None else _plus(y, b) for y, b in zip(ys, biases, strict=True)]


def _plus(y: Float[Array, '... o'], bias: Float[Array, ' o']) -> Float[Array, '... o']:
  return y + jnp.broadcast_to(bias.astype(y.dtype), y.shape)


def products(
  x: Float[Array, '... i'],
  kernels: Sequence[Float[Array, 'i _o'] | Quantised | Adapted],
  axes: tuple[str, str],
  dtype: jnp.dtype,
) -> tuple[Float[Array, '... _o'], ...]:
  """Returns x W for every W, reading `x` once: on a mesh it is gathered once for all of them.

  Of a `Quantised` W it is (x q) s: integers up to 127 are exact in bfloat16, and W is not. Of an
  `Adapted` one it is x W + (x A) B.
  """
  if any(isinstance(each, Adapted) for each in kernels):
    bases = [each.base if isinstance(each, Adapted) else each for each in kernels]
    ys = products(x, bases, axes, dtype)
    return tuple(
      y + _low_rank(x, each, dtype) if isinstance(each, Adapted) else y
      for y, each in zip(ys, kernels, strict=True)
    )
  stored = [each.values if isinstance(each, Quantised) else each for each in kernels]
  lower = axes in _LARGE and not is_forward_mode()  # steps of rounding have no tangents
  kind = _LOWER.get() if lower else 'dtype'
  ys = weighted(PRODUCTS[kind], x, stored, axes, jnp.dtype(dtype))
  return tuple(
    (y * jnp.broadcast_to(each.scale, y.shape)).astype(y.dtype)
    if isinstance(each, Quantised)
    else y
    for y, each in zip(ys, kernels, strict=True)
  )


def _low_rank(x: Float[Array, '... i'], kernel: Adapted, dtype: jnp.dtype) -> Array:
  # Not of matrices, as `_products`: on a mesh rows times tokens, as one axis, would be gathered.
  return jnp.dot(jnp.dot(x.astype(dtype), kernel.a.astype(dtype)), kernel.b.astype(dtype))


@contextlib.contextmanager
def lower_products(kind: str) -> Iterator[None]:
  """Has the large maps of layers that are traced within it make their products by `PRODUCTS[kind]`.

  'int8' and 'fp8' multiply numbers of one byte: each row of x and each column of W is divided by
  its largest magnitude over that of the type, y = ((x / s) (W / t)) s t, exactly summed. Gradients
  are those of the products that they stand for, in the compute type; with '_both' their products
  are lower as well. On a mesh each device scales what it multiplies.
  """
  token = _LOWER.set(kind)
  try:
    yield
  finally:
    _LOWER.reset(token)


def _backward(saved, dy: Array):
  # Of two matrices: as a contraction over (b, n), dW makes XLA copy both sides into transposed
  # layouts on a CPU, and the backward pass of d = 512, f = 2048 takes 2.5 times as long.
  x, kernel = saved
  dw = lax.platform_dependent(
    x, dy, cpu=_transposed_product, default=lambda x, dy: jnp.dot(x.T, dy)
  )
  return jnp.dot(dy, kernel.T), dw


def _transposed_product(x: Float[Array, 'n i'], dy: Float[Array, 'n o']) -> Float[Array, 'i o']:
  """Returns x^T dy with the narrower of both written out as its transpose.

  XLA's own A^T B is half as fast as its A B on a CPU. Barriers keep the transposition a copy by
  blocks: as part of what made x, or of the product, it takes some ten times as long.
  """

  def transposed(array: Array) -> Array:
    return lax.optimization_barrier(lax.optimization_barrier(array).T)

  if x.shape[1] <= dy.shape[1]:
    return jnp.dot(transposed(x), dy)
  return transposed(jnp.dot(transposed(dy), x))


def _lower_product(kind: str, x: Float[Array, 'n i'], kernel: Float[Array, 'i o']) -> Array:
  dtype, most, summed = _LOWER_TYPES[kind]

  def scaled(array: Array, axis: int) -> tuple[Array, Array]:
    array = array.astype(jnp.float32)
    scale = jnp.max(jnp.abs(array), axis, keepdims=True) / most
    array = array / jnp.where(scale > 0, scale, 1)
    return (jnp.round(array) if summed == jnp.int32 else array).astype(dtype), scale

  (q, s), (p, t) = scaled(x, 1), scaled(kernel, 0)
  y = lax.dot_general(q, p, (((1,), (0,)), ((), ())), preferred_element_type=summed)
  return (y.astype(jnp.float32) * s * t).astype(x.dtype)


def _lower_backward(kind: str, saved, dy: Array):
  x, kernel = saved
  return _lower_product(kind, dy, kernel.T), _lower_product(kind, x.T, dy)


def _of_each(product, backward):
  product = with_backward(product, backward)

  def products(x: Array, *kernels: Array) -> tuple[Array, ...]:
    flat = x.reshape(-1, x.shape[-1])
    return tuple(product(flat, kernel).reshape(*x.shape[:-1], -1) for kernel in kernels)

  return products


PRODUCTS = {'dtype': _of_each(jnp.dot, _backward)}
for _kind in _LOWER_TYPES:
  _product, _both = (functools.partial(f, _kind) for f in (_lower_product, _lower_backward))
  PRODUCTS |= {_kind: _of_each(_product, _backward), f'{_kind}_both': _of_each(_product, _both)}
