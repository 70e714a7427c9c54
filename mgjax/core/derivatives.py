"""Custom backward passes for functions that must also support forward-mode differentiation.

`jax.custom_vjp` forbids forward mode. Within `forward_mode()` the plain function is traced, and JAX
derives its tangents. Outside, the custom backward pass is used. Both give the same numbers.
"""

import contextlib
import contextvars
import functools
from collections.abc import Callable, Iterator
from typing import TypeVar

import jax

T = TypeVar('T')

_FORWARD = contextvars.ContextVar('forward_mode', default=False)


@contextlib.contextmanager
def forward_mode() -> Iterator[None]:
  """Makes functions that are traced in this context differentiable by `jax.jvp` (`jax.linearize`).

  Attention is computed blockwise here, with memory linear in the tokens, because the kernels of
  accelerators have no tangents. A function that was compiled outside does not change: enter the
  context before its first call.
  """
  token = _FORWARD.set(True)
  try:
    yield
  finally:
    _FORWARD.reset(token)


def is_forward_mode() -> bool:
  """Returns whether the current trace is within `forward_mode`."""
  return _FORWARD.get()


def with_backward(
  function: Callable[..., T],
  backward: Callable[..., tuple],
  forward: Callable[..., tuple] | None = None,
) -> Callable[..., T]:
  """Gives a function a custom backward pass, which `forward_mode` ignores.

  `forward` and `backward` are as in `jax.custom_vjp`. By default `forward` saves all arguments.
  """
  with_vjp = jax.custom_vjp(function)
  with_vjp.defvjp(forward or (lambda *inputs: (function(*inputs), inputs)), backward)

  @functools.wraps(function)
  def dispatch(*arguments: object) -> T:
    return function(*arguments) if is_forward_mode() else with_vjp(*arguments)

  return dispatch
