"""Attention with keys and values that travel around a ring of devices (Movie Gen §3.1.6).

Every device keeps its queries. In step i of r it works on the keys of the device i behind it, while
it already sends them on: the permutation does not depend on the work, so both overlap. Results are
merged in float32 by their log-sum-exp L,

  L = log(exp L_1 + exp L_2),    O = O_1 exp(L_1 - L) + O_2 exp(L_2 - L).

The backward pass goes around again with the global L. dK and dV follow one step behind their keys,
and are back on their device after r steps.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import lax

from mgjax.core.precision import wide
from mgjax.core.typing import Array, Tree

_AXIS = 'context'


def forward(
  kernel: Callable[..., tuple[Array, Array]],
  q: Array,
  keys: Tree,
  *,
  steps: int,
  stride: int,
  devices: int,
) -> tuple[Array, Array]:
  """Returns O in the type of `q` and L over all keys of the ring.

  `kernel` is `(q, *keys) -> (O, L)` on one device, O (b n g k) and L (b g n); what travels are
  `keys`, values and their mask or None. A ring has r = `steps` devices, `stride` apart along the
  context axis of `devices`.
  """
  around = _permutation(stride, devices)

  def merge(total, lse, y, other):
    merged = jnp.logaddexp(lse, other)
    weights = (jnp.exp(x - merged).swapaxes(1, 2)[..., None] for x in (lse, other))
    first, second = weights
    return total * first + y.astype(total.dtype) * second, merged

  def step(carry, _):
    total, lse, keys = carry
    following = around(keys)
    total, lse = merge(total, lse, *kernel(q, *keys))
    return (total, lse, following), None

  following = around(keys)
  y, lse = kernel(q, *keys)
  carry = (y.astype(wide(y.dtype)), lse, following)
  (total, lse, keys), _ = lax.scan(step, carry, None, length=steps - 2)
  total, lse = merge(total, lse, *kernel(q, *keys))
  return total.astype(q.dtype), lse


def backward(
  kernel: Callable[..., tuple[Array, Array, Array]],
  keys: Tree,
  *,
  steps: int,
  stride: int,
  devices: int,
) -> tuple[Array, Array, Array]:
  """Returns dQ, dK, dV in float32; `kernel(*keys)` gives one device's part of them."""
  around = _permutation(stride, devices)

  def float32(parts):
    return tuple(part.astype(jnp.float32) for part in parts)

  def step(carry, _):
    dq, travelling, keys = carry
    following, arrived = around(keys), around(travelling)
    more, *parts = float32(kernel(*keys))
    travelling = tuple(a + b for a, b in zip(arrived, parts, strict=True))
    return (dq + more, travelling, following), None

  following = around(keys)
  dq, *travelling = float32(kernel(*keys))
  carry = (dq, tuple(travelling), following)
  (dq, travelling, keys), _ = lax.scan(step, carry, None, length=steps - 2)
  arrived = around(travelling)
  more, *parts = float32(kernel(*keys))
  dk, dv = around(tuple(a + b for a, b in zip(arrived, parts, strict=True)))
  return dq + more, dk, dv


def _permutation(stride: int, devices: int) -> Callable[[Tree], Tree]:
  pairs = [(i, (i + stride) % devices) for i in range(devices)]
  return lambda tree: jax.tree.map(lambda x: lax.ppermute(x, _AXIS, pairs), tree)
