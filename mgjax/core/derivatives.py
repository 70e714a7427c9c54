"""Functions with a backward pass of their own, which can be differentiated forward as well.

`jax.custom_vjp` forbids forward mode. Within `forward_mode()` such a function is its plain self,
whose tangents JAX derives; outside it keeps its own backward pass. Both give the same numbers.
"""

import contextlib
import contextvars
import functools
from collections.abc import Callable, Iterator
from typing import Any

import jax

_FORWARD = contextvars.ContextVar('forward_mode', default=False)


@contextlib.contextmanager
def forward_mode() -> Iterator[None]:
  """Lets what is traced within it be differentiated by `jax.jvp` (and `jax.linearize`).

  Attention is then computed by blocks, in memory linear in the tokens, on accelerators too: their
  kernels have no tangents. A function compiled outside stays as it is: begin with the context.
  """
  token = _FORWARD.set(True)
  try:
    yield
  finally:
    _FORWARD.reset(token)


def is_forward_mode() -> bool:
  """Whether this is traced within `forward_mode`."""
  return _FORWARD.get()


def with_backward(
  function: Callable[..., Any],
  backward: Callable[..., Any],
  forward: Callable[..., Any] | None = None,
) -> Callable[..., Any]:
  """Gives a function a backward pass, but not within `forward_mode`.

  `forward` and `backward` are those of `jax.custom_vjp`; without the first, all arguments are kept.
  """
  own = jax.custom_vjp(function)
  own.defvjp(forward or (lambda *inputs: (function(*inputs), inputs)), backward)

  @functools.wraps(function)
  def chosen(*arguments: Any) -> Any:
    return function(*arguments) if is_forward_mode() else own(*arguments)

  return chosen
