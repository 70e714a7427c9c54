"""Compiler options by chip, for every program that trains or samples."""

import functools
from collections.abc import Callable
from typing import Any

import jax

# Without it a device waits for every exchange of heads; with it the compiler starts one and goes on
# with what does not need it. Flags of other recipes are not taken over: on most chips they are
# refused, and each is to be compiled for every chip first (`tests/planning/test_aot.py`).
TPU = {'xla_tpu_enable_async_all_to_all': 'true'}
REFUSED_BY = ('TPU v5 lite',)  # 'not supported on limited ICI'


# What guides of XLA for GPUs name for overlap (docs.jax.dev/en/latest/gpu_performance_tips.html,
# docs.nvidia.com/jax-toolbox/performance-profiling/gpu-performance): a schedule that moves
# collectives away from what needs them, and those of a scan's next turn begun in this one. We tried
# none on a GPU; left out are thresholds for bytes, which are to be measured, and unrolling.
GPU = {
  'xla_gpu_enable_latency_hiding_scheduler': True,
  'xla_gpu_enable_pipelined_all_gather': True,
  'xla_gpu_enable_pipelined_reduce_scatter': True,
  'xla_gpu_enable_pipelined_all_reduce': True,
}


def compiler_options(device: Any, count: int = 1) -> dict[str, str | bool]:
  """Returns the options for a program on so many devices, by their kind.

  One GPU has no collectives to overlap, and keeps XLA's own.
  """
  if device.platform == 'gpu':
    return dict(GPU) if count > 1 else {}
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
    self._compiled: dict[tuple[tuple[str, str | bool], ...], Any] = {}

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
