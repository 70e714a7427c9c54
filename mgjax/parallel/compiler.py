"""Compiler options by chip, for every program that trains or samples."""

import functools
from collections.abc import Callable
from typing import Any

import jax

# Without it a device waits for every exchange of heads; with it the compiler starts one and goes on
# with what does not need it. Flags of other recipes are not taken over: on most chips they are
# refused, and each is to be compiled for every chip first (`tests/lab/planning/test_aot.py`).
TPU = {'xla_tpu_enable_async_all_to_all': 'true'}
REFUSED_BY = ('TPU v5 lite',)  # 'not supported on limited ICI'


# Products of matrices by cuBLAS. Triton's are tuned by compiling dozens of tiles for each: a step
# of 5M parameters was not compiled after 200 s on an H200; four layers of the 30B are after 52 s
# without, and reach 47.6% of the peak (docs/performance.md).
GPU = {'xla_gpu_enable_triton_gemm': False}
# How many collectives may be on their way at once. Of what guides of XLA for GPUs name, a schedule
# that hides latency is its default by now, and pipelined collectives expose more, of the 30B step
# compiled for 512 H100 (docs/performance.md has the table); no time was measured.
SEVERAL_GPUS = {'xla_gpu_experimental_parallel_collective_overlap_limit': 4}


def compiler_options(device: Any, count: int = 1) -> dict[str, str | int]:
  """Returns the options for a program on so many devices, by their kind."""
  if device.platform == 'gpu':
    return GPU | (SEVERAL_GPUS if count > 1 else {})
  able = device.platform == 'tpu' and device.device_kind not in REFUSED_BY
  return dict(TPU) if able else {}


class DeviceProgram:
  """A function under `jax.jit`, with the options of the devices that it is called on.

  Those are the ambient mesh's, or the first one there is; nobody asks for them before the first
  call, since looking for devices takes seconds and holds them.
  """

  def __init__(self, function: Callable[..., Any]):
    self._function = function
    functools.update_wrapper(self, function)
    self._compiled: dict[tuple[tuple[str, str | int], ...], Any] = {}

  def __call__(self, *arguments: Any) -> Any:
    """Runs the program, compiled once for every shape of its arguments."""
    return self._jitted()(*arguments)

  def lower(self, *arguments: Any) -> Any:
    """Returns `jax.jit(function).lower(*arguments)`, of arrays or shapes."""
    return self._jitted().lower(*arguments)

  def _jitted(self) -> Any:
    mesh = jax.sharding.get_mesh()
    devices = jax.devices()[:1] if mesh.empty else mesh.devices.ravel()
    options = compiler_options(devices[0], len(devices))
    key = tuple(sorted(options.items()))
    if key not in self._compiled:
      self._compiled[key] = jax.jit(self._function, compiler_options=options or None)
    return self._compiled[key]
