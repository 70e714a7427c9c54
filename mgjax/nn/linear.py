"""Linear maps whose parameters carry logical axes."""

import contextlib
import contextvars
import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import lax

from mgjax.core.derivatives import is_forward_mode, with_backward
from mgjax.core.errors import CheckpointError
from mgjax.core.precision import BASE, LORA_A, LORA_B, PARAMETER, QUANTISED, SCALE
from mgjax.core.typing import Array, Float, Key, Tree
from mgjax.parallel.gather import weighted
from mgjax.parallel.rules import place_whole

# Fan-in scaling lets one setting train every width; at d = 6144 it is a standard deviation of
# 0.0128, beside the 0.01 that one public recipe of the 30B model uses (not in public sources).
FAN_IN = jax.nn.initializers.variance_scaling(1.0, 'fan_in', 'truncated_normal')
ZEROS = jax.nn.initializers.zeros
ONES = jax.nn.initializers.ones

_LOWER_TYPES = {  # 1-byte type, its largest number, the type of sums of products
  'int8': (jnp.int8, 127.0, jnp.int32),
  'fp8': (jnp.float8_e4m3fn, 448.0, jnp.float32),
}
_LOWER = contextvars.ContextVar('lower_products', default='dtype')
_LARGE = {('embed', 'heads'), ('heads', 'embed'), ('embed', 'hidden'), ('hidden', 'embed')}


class Quantised(NamedTuple):
  """A weight W ~ q s in 1 byte a number, q (in, out), s (out,); see `nn/quantize.py`."""

  values: Array
  scale: Array


class Adapted(NamedTuple):
  """A weight W + A B whose W is frozen, A (in, r), B (r, out); see `nn/lora.py`."""

  base: Array | Quantised
  a: Array
  b: Array


Init = Callable[[Key, tuple[int, ...], jnp.dtype], Array]  # of a key, a shape and a type
Weight = Float[Array, 'i o'] | Quantised | Adapted
Weights = tuple[Weight, Float[Array, ' o'] | None]  # W and b


def parameter(
  module: nn.Module, name: str, init: Init, axes: tuple[str, ...], shape: tuple[int, ...]
) -> Array:
  """Declares a float32 parameter with one logical name (`core/axes.py`) an axis.

  It is replicated, on a mesh too: use it for vectors and tables, and `weight` for matrices.
  """
  return place_whole(jnp.asarray(_declare(module, name, init, axes, shape)))


def weight(module: nn.Module, init: Init, axes: tuple[str, ...], shape: tuple[int, ...]) -> Array:
  """Declares 'kernel', the float32 weight of a convolution: outputs last, inputs last but one.

  On a mesh it is returned sharded; `parallel.gather.weighted` multiplies with it. Adapters are
  added here.
  """
  kernel = _declare(module, 'kernel', init, axes, shape)
  if not isinstance(kernel, Mapping):
    return jnp.asarray(kernel)
  change = jnp.dot(place_whole(kernel[LORA_A]), place_whole(kernel[LORA_B]))
  return jnp.asarray(kernel[BASE]) + change


def _matrix(module: nn.Module, init: Init, axes: tuple[str, str], shape: tuple[int, int]) -> Weight:
  """Declares the 'kernel' (in, out) of a linear map, as `weight` does.

  In sampling it may be `Quantised`, and with adapters it is `Adapted`.
  """
  kernel = _declare(module, 'kernel', init, axes, shape)
  if not isinstance(kernel, Mapping) or QUANTISED in kernel:
    return _base(kernel)
  return Adapted(_base(kernel[BASE]), place_whole(kernel[LORA_A]), place_whole(kernel[LORA_B]))


def _base(stored: Tree) -> Array | Quantised:
  if not isinstance(stored, Mapping):
    return jnp.asarray(stored)
  return Quantised(stored[QUANTISED], place_whole(stored[SCALE]))


def _declare(
  module: nn.Module, name: str, init: Init, axes: tuple[str, ...], shape: tuple[int, ...]
) -> Tree:
  if module.is_initializing():
    return module.param(name, nn.with_logical_partitioning(init, axes), shape, PARAMETER)
  # `module.param` would trace `init` to check a shape: a quarter of the time to trace a model.
  stored = nn.unbox(module.get_variable('params', name))
  for part, array, expected in _parts(name, stored, shape):
    if array is None or jnp.shape(array) != expected:
      actual = 'missing' if array is None else f'of shape {jnp.shape(array)}'
      raise CheckpointError(
        f'the weights are not of this model: {"/".join((*module.path, part))} is {actual}, '
        f'expected shape {expected}; use the configuration that they were trained with, '
        'or get them again'
      )
  return stored


def _parts(
  name: str, stored: Tree, shape: tuple[int, ...]
) -> Iterator[tuple[str, Array | None, tuple[int, ...]]]:
  """Yields the arrays of a parameter, None for a missing one, with their expected shapes."""
  if not isinstance(stored, Mapping):
    yield name, stored, shape
  elif BASE in stored:  # adapters were checked when they were attached
    yield from _parts(name, stored[BASE], shape)
  else:
    yield f'{name}/{QUANTISED}', stored.get(QUANTISED), shape
    yield f'{name}/{SCALE}', stored.get(SCALE), (*shape[:-2], *shape[-1:])


class Kernel(nn.Module):
  """The weight W (in, out) of one of several linear maps that `products` applies to x."""

  shape: tuple[int, int]
  axes: tuple[str, str]
  initializer: Init = FAN_IN

  @nn.compact
  def __call__(self) -> Weight:
    return _matrix(self, self.initializer, self.axes, self.shape)


class Map(nn.Module):
  """The weight W (in, out) and, with `use_bias`, b of one of several maps for `linears`."""

  shape: tuple[int, int]
  axes: tuple[str, str]
  use_bias: bool = False

  @nn.compact
  def __call__(self) -> Weights:
    kernel = _matrix(self, FAN_IN, self.axes, self.shape)
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
  initializer: Init = FAN_IN
  dtype: jnp.dtype = jnp.float32

  @nn.compact
  def __call__(self, x: Float[Array, '... i']) -> Float[Array, '... o']:
    shape = (x.shape[-1], self.features)
    kernel = _matrix(self, self.initializer, self.axes, shape)
    (y,) = products(x, (kernel,), self.axes, self.dtype)
    if self.use_bias:
      y = _plus(y, parameter(self, 'bias', ZEROS, self.axes[1:], (self.features,)))
    return y


def linears(
  x: Float[Array, '... i'], maps: Sequence[Weights], axes: tuple[str, str], dtype: jnp.dtype
) -> list[Float[Array, '... _o']]:
  """Returns x W (+ b) for every `Map`, reading `x` once, as `products` does."""
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

  For a `Quantised` W it is (x q) s, because integers up to 127 are exact in bfloat16 and W is not.
  For an `Adapted` one it is x W + (x A) B.
  """
  bases = [kernel.base if isinstance(kernel, Adapted) else kernel for kernel in kernels]
  return tuple(
    y + _low_rank(x, kernel, dtype) if isinstance(kernel, Adapted) else y
    for y, kernel in zip(_base_products(x, bases, axes, dtype), kernels, strict=True)
  )


def _base_products(
  x: Array, kernels: Sequence[Array | Quantised], axes: tuple[str, str], dtype: jnp.dtype
) -> tuple[Array, ...]:
  stored = [kernel.values if isinstance(kernel, Quantised) else kernel for kernel in kernels]
  lower = axes in _LARGE and not is_forward_mode()  # rounding has no tangents
  kind = _LOWER.get() if lower else 'dtype'
  ys = weighted(PRODUCTS[kind], x, stored, axes, jnp.dtype(dtype))
  return tuple(
    (y * jnp.broadcast_to(kernel.scale, y.shape)).astype(y.dtype)
    if isinstance(kernel, Quantised)
    else y
    for y, kernel in zip(ys, kernels, strict=True)
  )


def _low_rank(x: Float[Array, '... i'], kernel: Adapted, dtype: jnp.dtype) -> Array:
  # Not as products of matrices: on a mesh rows times tokens, as one axis, would be gathered.
  return jnp.dot(jnp.dot(x.astype(dtype), kernel.a.astype(dtype)), kernel.b.astype(dtype))


@contextlib.contextmanager
def lower_products(kind: str) -> Iterator[None]:
  """Makes large maps of layers that are traced in this context multiply by `PRODUCTS[kind]`.

  'int8' and 'fp8' multiply 1-byte numbers. Each row of x and each column of W is scaled by its
  largest magnitude over that of the type: y = ((x / s) (W / t)) s t, exactly summed. Gradients are
  those of the full products, in the compute type; with '_both' their products are 1-byte as well.
  On a mesh each device scales the parts that it multiplies.
  """
  token = _LOWER.set(kind)
  try:
    yield
  finally:
    _LOWER.reset(token)


def _backward(saved, dy: Array):
  # As a product of two matrices: for a contraction over (b, n) XLA would copy both sides into
  # transposed layouts on a CPU, 2.5 times slower at d = 512, f = 2048.
  x, kernel = saved
  dw = lax.platform_dependent(
    x, dy, cpu=_transposed_product, default=lambda x, dy: jnp.dot(x.T, dy)
  )
  return jnp.dot(dy, kernel.T), dw


def _transposed_product(x: Float[Array, 'n i'], dy: Float[Array, 'n o']) -> Float[Array, 'i o']:
  """Returns x^T dy, transposing the narrower of both explicitly.

  XLA's own A^T B is half as fast as its A B on a CPU. Barriers keep the transposition a blocked
  copy; fused with its input or with the product it takes about 10 times as long.
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
