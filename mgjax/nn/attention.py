"""Softmax attention behind one signature, on one device or a mesh (Movie Gen §3.1.3, §3.1.6)."""

import functools
import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jax.ad_checkpoint import checkpoint_name
from jax.sharding import AbstractMesh

from mgjax.core.derivatives import is_forward_mode, with_backward
from mgjax.core.errors import ConfigError
from mgjax.core.plug_ins import Later
from mgjax.core.typing import Array, Bool, Float
from mgjax.nn.kernels import blockwise, cudnn, splash, xla
from mgjax.nn.kernels.kernel import NOTHING, AttentionKernel
from mgjax.nn.kernels.tiles import Tiles, tiled
from mgjax.nn.kernels.tpu_blocks import takes_tiles
from mgjax.parallel import ring, ulysses
from mgjax.parallel.rules import BATCH, Entry, ambient, fit, size, spec

# Below this number of scores, XLA's batched products win: a CPU keeps the scores in its caches, and
# elsewhere launching a kernel costs more. Above it, a kernel that keeps scores out of memory wins.
# `docs/experiments/cpu_optimizations.md` has the measurements.
FEW_SCORES = 2**22

# Their cores have 16 MiB of VMEM, too little for the gradient of all queries.
SMALL_TPUS = ('TPU v2', 'TPU v3', 'TPU v4')

PARTS = (1, 2, 3, 4)  # into which heads are split for the all-to-all

XLA = AttentionKernel(xla.forward, xla.backward)
BLOCKWISE = AttentionKernel(blockwise.forward, blockwise.backward)
# Experimental: imported on first use on a TPU.
_forward = Later('mgjax.experimental.tpu_attention.forward')
_backward = Later('mgjax.experimental.tpu_attention.backward')
TPU = AttentionKernel(
  lambda *arrays, **index: _forward.forward(*arrays, **index),
  lambda *arrays, **index: _backward.backward(*arrays, **index),
  takes_tiles=takes_tiles,
)
SPLASH = AttentionKernel(splash.forward, splash.backward)
CUDNN = AttentionKernel(cudnn.forward, cudnn.backward, takes_output=True)

ATTENTION_KERNELS = ('auto', 'xla', 'blockwise', 'flash', 'splash')
EXCHANGES = ('auto', 'gather', 'ring', 'ulysses', 'ring_ulysses')


def attend(
  q: Float[Array, 'b n g k'],
  k: Float[Array, 'b m g k'],
  v: Float[Array, 'b m g k'],
  *,
  mask: Bool[Array, 'b m'] | None = None,
  impl: str = 'auto',
  exchange: str = 'auto',
  saved_as: str = 'attention',
  tiles: Tiles | None = None,
) -> Float[Array, 'b n g k']:
  """Returns softmax(Q K^T / sqrt(k)) V for every head, in the type of `q`.

  Scores and softmax are float32 for any input type. All kernels and exchanges give the same numbers
  (float32: within 5e-6, `test_values_and_gradients_are_softmax_attention`). For rematerialisation,
  the result is named `saved_as` and its log-sum-exp `saved_as`_sums. The backward pass needs them
  and q, k, v as the kernel read them, which are named `saved_as`_inputs.

  Args:
    mask: True where a key may be read. Rows without such a key return zeros.
    impl: the kernel of one device. 'xla' stores all scores. 'blockwise' recomputes them in the
      backward pass, with memory linear in n. 'flash' is the accelerator's kernel,
      `experimental/tpu_attention` on a TPU and cuDNN on a GPU. 'splash' is JAX's kernel for TPUs.
      'auto' chooses by shape, type and platform.
    exchange: the communication along the mesh axis `context`, which splits tokens. 'gather' gathers
      all keys and values on every device (the paper's). 'ulysses' exchanges tokens for heads.
      'ring' sends keys and values around a ring. 'ring_ulysses' exchanges as many heads as divide,
      and sends keys around the rest. 'auto' is 'ulysses' if heads divide, else 'ring_ulysses'.
    saved_as: the name of the result for the policies of `nn/remat_scan.py`.
    tiles: of the tokens, each of which reads only a window of tiles; None reads all keys. Devices
      that share a row must exchange all its tokens for heads.

  Raises:
    ConfigError: there is no such kernel or exchange, or the heads do not divide although `tiles` or
      'ulysses' needs it.
  """
  for name, value, known in (
    ('kernel', impl, ATTENTION_KERNELS),
    ('exchange', exchange, EXCHANGES),
  ):
    if value not in known:
      raise ConfigError(f'unknown attention {name} {value!r}; expected one of {", ".join(known)}')
  shapes = tuple((x.shape, jnp.dtype(x.dtype)) for x in (q, k))
  impl = impl if not is_forward_mode() or impl == 'xla' else 'forward'
  options = _Options(impl, exchange, tiles, ambient())
  return _make_attend(*shapes, mask is not None, saved_as, options)(q, k, v, mask)


class _Options(NamedTuple):
  """The kernel, the exchange between devices, the tiles and the mesh of an attention."""

  impl: str
  exchange: str
  tiles: Tiles | None
  mesh: AbstractMesh | None


def heads_exchanged(heads: int, devices: int, exchange: str) -> int:
  """Returns u, the number of devices that exchange heads; a ring connects the other c / u.

  `heads` are g on one device, `devices` c of the context axis. Raises ConfigError if `exchange` is
  'ulysses' and the heads do not divide.
  """
  common = math.gcd(heads, devices)
  if exchange == 'ulysses' and common != devices:
    fitting = [u for u in range(1, heads + 1) if heads % u == 0]
    raise ConfigError(
      f"exchange 'ulysses' trades {heads} heads a device over mesh.context = {devices}, which does "
      f'not divide them; take a context of {", ".join(map(str, fitting))}, or exchange '
      "'ring_ulysses'"
    )
  return 1 if exchange == 'ring' else common


def parts_of_heads(heads: int, devices: int, among: int) -> int:
  """Returns the number of parts in which heads are exchanged; 1 if keys travel as well."""
  return max(n for n in PARTS if heads // among % n == 0) if among == devices else 1


@functools.lru_cache(maxsize=256)  # equal layers share one trace
def _make_attend(
  query, key, masked: bool, saved_as: str, options: _Options
) -> Callable[..., Array]:
  """Makes the attention of given shapes and types; on a mesh, as shard_map regions."""
  forward, backward = _on_devices(query, key, masked, options)

  def run(q, k, v, mask):
    y, lse, saved = forward(q, k, v, mask)
    y = checkpoint_name(y, saved_as)
    lse = checkpoint_name(lse, f'{saved_as}_sums')
    saved = tuple(checkpoint_name(x, f'{saved_as}_inputs') for x in saved)
    return y, (saved, mask, y, lse)

  def run_back(residuals, dy):
    saved, mask, y, lse = residuals
    return *backward(saved, mask, y, lse, dy), None

  return with_backward(lambda *inputs: run(*inputs)[0], run_back, run)


def _on_devices(query, key, masked, options: _Options):
  impl, exchange, tiles, mesh = options
  (q_shape, dtype), (k_shape, _) = query, key
  if mesh is None:
    one = _Gathered(split=False, devices=1)
    return _by_platform(one, q_shape, k_shape, dtype, impl, tiles)

  def entries(shape: tuple[int, ...]) -> list[Entry]:
    b, n, g, _ = shape
    return [fit(BATCH, b, mesh), fit(('context',), n, mesh), fit(('tensor',), g, mesh), ()]

  q_in, k_in = entries(q_shape), entries(k_shape)
  devices = mesh.shape['context']
  heads = q_shape[2] // size(mesh, q_in[2])
  shared = bool(q_in[1] or k_in[1])
  if (
    shared
    and tiles
    and (exchange == 'gather' or heads_exchanged(heads, devices, exchange) != devices)
  ):
    raise ConfigError(
      f'windows of tiles need rows whole, and mesh.context = {devices} with {heads} heads a device '
      f'and exchange {exchange!r} leaves pieces; take a context that divides the heads, and '
      "exchange 'ulysses'"
    )
  if exchange == 'gather' or not (q_in[1] and k_in[1]):
    plan = _Gathered(split=bool(q_in[1]), devices=devices if k_in[1] else 1)
    saved_spec = (spec(q_in), spec(k_in), spec(k_in))
    lse_spec = spec([q_in[0], q_in[2], q_in[1]])
  else:
    plan = _Traded(devices, heads_exchanged(heads, devices, exchange), heads)
    # After the exchange, an array is (b, u n, g / u, k) on every device. Its spec is that of the
    # devices' pieces concatenated along tokens, whatever they hold.
    saved_spec = (spec(q_in),) * 3
    lse_spec = spec([q_in[0], q_in[2], q_in[1]])
  mask_spec = spec(k_in[:2]) if masked else None
  q_spec, k_spec = spec(q_in), spec(k_in)

  def local(shape, entry):
    return tuple(length // size(mesh, axes) for length, axes in zip(shape, entry, strict=True))

  shapes = local(q_shape, q_in), local(k_shape, k_in)
  forward, backward = _by_platform(plan, *shapes, dtype, impl, tiles)
  inputs = (q_spec, k_spec, k_spec, mask_spec)
  saved = (saved_spec, mask_spec, q_spec, lse_spec, q_spec)
  return (
    jax.shard_map(
      forward, in_specs=inputs, out_specs=(q_spec, lse_spec, saved_spec), check_vma=False
    ),
    jax.shard_map(backward, in_specs=saved, out_specs=inputs[:3], check_vma=False),
  )


def _by_platform(plan, q_shape, k_shape, dtype, impl, tiles):
  """Makes forward and backward of one device; lowering selects the kernel of the platform.

  A program for a TPU may be compiled on a machine that has none.
  """
  seen = plan.seen(q_shape, k_shape)
  if tiles:
    seen = tiles.seen(seen[0]), tiles.seen(seen[1], keys=True)
  kernels = {
    platform: tiled(kernel, tiles) if tiles else kernel
    for platform, kernel in _kernels(*seen, dtype, impl).items()
  }
  choices = {
    platform: (functools.partial(plan.forward, kernel), functools.partial(plan.backward, kernel))
    for platform, kernel in kernels.items()
  }
  if len(choices) == 1:
    return choices['default']

  def choose(which: int):
    return lambda *args: lax.platform_dependent(
      *args, **{platform: pair[which] for platform, pair in choices.items()}
    )

  return choose(0), choose(1)


def _kernels(q_shape, k_shape, dtype, impl) -> dict[str, AttentionKernel]:
  """Returns the kernel of each platform; 'default' is for all others."""
  b, n, g, _ = q_shape
  few = b * n * g * k_shape[1] < FEW_SCORES
  if impl == 'forward':  # kernels of accelerators have no tangents
    impl = 'xla' if few else 'blockwise'
  if impl in ('xla', 'blockwise') or (impl == 'auto' and few):
    return {'default': BLOCKWISE if impl == 'blockwise' else XLA}
  small = jax.default_backend() == 'tpu' and jax.devices()[0].device_kind in SMALL_TPUS
  kernels = {'default': BLOCKWISE, 'tpu': SPLASH if small or impl == 'splash' else TPU}
  if cudnn.supported(q_shape, k_shape, dtype):
    kernels['cuda'] = CUDNN
  return kernels


class _Traded:
  """Exchanges heads for tokens within groups of u devices; keys travel between the groups.

  If no keys travel, heads are exchanged and computed in a few parts, so that communication of one
  part overlaps with the kernel on another.
  """

  def __init__(self, devices: int, among: int, heads: int):
    self._groups = ulysses.groups(devices, among)
    self._among = among
    self._ring = {'steps': devices // among, 'stride': among, 'devices': devices}
    self._alone = among == devices
    self._parts = parts_of_heads(heads, devices, among)

  def seen(self, q_shape, k_shape):
    """Returns the shapes of queries and keys that a kernel sees, for all parts together."""

    def traded(shape):
      b, n, g, k = shape
      return b, n * self._among, g // self._among, k

    return traded(q_shape), traded(k_shape)

  def forward(self, kernel: AttentionKernel, q, k, v, mask):
    mask = self._whole(mask)

    def part(*piece):
      q, *keys = (self._to_heads(x) for x in piece)
      if self._alone:
        y, lse = kernel.forward(q, *keys, mask)
      else:
        y, lse = ring.forward(kernel.forward, q, (*keys, mask), **self._ring)
      return self._to_tokens(_readable(y, lse)), lse, (q, *keys)

    ys, sums, saved = zip(*map(part, *map(self._cut, (q, k, v))), strict=True)
    saved = (jnp.concatenate(pieces, axis=2) for pieces in zip(*saved, strict=True))
    return self._join(ys), jnp.concatenate(sums, axis=1), tuple(saved)

  def backward(self, kernel: AttentionKernel, saved, mask, y, lse, dy):
    mask = self._whole(mask)
    output = y if kernel.takes_output else _delta(y, dy)[..., None]

    def part(q, k, v, lse, output, dy):
      output = self._to_heads(output)
      dy = _readable(self._to_heads(dy), lse)
      output = output if kernel.takes_output else jnp.swapaxes(output[..., 0], 1, 2)

      def of_keys(k, v, mask):
        return kernel.backward((q, k, v, mask, output, lse), dy)

      if self._alone:
        gradients = of_keys(k, v, mask)
      else:
        gradients = ring.backward(of_keys, (k, v, mask), **self._ring)
      pairs = zip(gradients, (q, k, v), strict=True)
      return tuple(self._to_tokens(gradient.astype(x.dtype)) for gradient, x in pairs)

    own = [jnp.split(x, self._parts, axis=2) for x in saved]
    sums = jnp.split(lse, self._parts, axis=1)
    gradients_of_parts = map(part, *own, sums, self._cut(output), self._cut(dy))
    return tuple(map(self._join, zip(*gradients_of_parts, strict=True)))

  def _cut(self, x: Float[Array, 'b n g _k']) -> list[Array]:
    b, n, g, k = x.shape
    x = x.reshape(b, n, self._among, self._parts, -1, k)
    return [x[:, :, :, part].reshape(b, n, g // self._parts, k) for part in range(self._parts)]

  def _join(self, pieces: Sequence[Array]) -> Float[Array, 'b n g _k']:
    b, n, g, k = pieces[0].shape
    x = jnp.stack([piece.reshape(b, n, self._among, -1, k) for piece in pieces], axis=3)
    return x.reshape(b, n, g * self._parts, k)

  def _to_heads(self, x: Array) -> Array:
    return x if self._among == 1 else ulysses.to_heads(x, self._groups)

  def _to_tokens(self, x: Array) -> Array:
    return x if self._among == 1 else ulysses.to_tokens(x, self._groups)

  def _whole(self, mask: Array | None) -> Array | None:
    if mask is None or self._among == 1:
      return mask
    return lax.all_gather(mask, 'context', axis=1, axis_index_groups=self._groups, tiled=True)


class _Gathered:
  """Gathers keys and values on every device, which keeps its own queries."""

  def __init__(self, *, split: bool, devices: int):
    self._split = split
    self._devices = devices

  def seen(self, q_shape, k_shape):
    """Returns the shapes of queries and keys that a kernel sees."""
    b, m, g, k = k_shape
    return q_shape, (b, m * self._devices, g, k)

  def forward(self, kernel: AttentionKernel, q, k, v, mask):
    y, lse = kernel.forward(q, *self._whole(k, v, mask))
    return _readable(y, lse), lse, (q, k, v)

  def backward(self, kernel: AttentionKernel, saved, mask, y, lse, dy):
    q, k, v = saved
    output = y if kernel.takes_output else jnp.swapaxes(_delta(y, dy), 1, 2)
    keys = self._whole(k, v, mask)
    dq, dk, dv = kernel.backward((q, *keys, output, lse), _readable(dy, lse))
    return dq, self._own(dk, k), self._own(dv, v)

  def _whole(self, *keys):
    if self._devices == 1:
      return keys
    return tuple(
      None if x is None else lax.all_gather(x, 'context', axis=1, tiled=True) for x in keys
    )

  def _own(self, gradient: Array, like: Array) -> Array:
    if self._split and self._devices > 1:
      return lax.psum_scatter(gradient, 'context', scatter_dimension=1, tiled=True)
    if self._split:
      return lax.psum(gradient, 'context')
    if self._devices > 1:  # every device saw all queries, and has the whole gradient
      begin = lax.axis_index('context') * like.shape[1]
      return lax.dynamic_slice_in_dim(gradient, begin, like.shape[1], 1)
    return gradient


def _delta(y: Array, dy: Array) -> Float[Array, 'b n g']:
  return jnp.sum(dy.astype(jnp.float32) * y.astype(jnp.float32), axis=-1)


def _readable(y: Float[Array, 'b n g k'], lse: Float[Array, 'b g n']) -> Array:
  """Sets rows to zero that have no key to read."""
  return jnp.where(jnp.swapaxes(lse > NOTHING, 1, 2)[..., None], y, jnp.zeros((), y.dtype))
