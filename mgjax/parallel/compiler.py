"""Compiler options by chip, for every program that trains or samples."""

import functools
from collections.abc import Callable
from typing import Any

import jax

# Without it a device waits for every exchange of heads. With it the compiler starts the exchange
# and goes on with independent work. Flags of other recipes are refused on most chips; compile a new
# flag for every chip first (`tests/lab/planning/test_aot.py`).
TPU_OPTIONS = {'xla_tpu_enable_async_all_to_all': 'true'}
REFUSED_BY = ('TPU v5 lite',)  # 'not supported on limited ICI'


# Matrix products use cuBLAS. Triton autotunes dozens of tiles for each product: a step of 5M
# parameters did not compile within 200 s on an H200. With cuBLAS four layers of the 30B compile in
# 52 s, and reach 47.6% of the peak (docs/experiments/h200.md).
GPU = {'xla_gpu_enable_triton_gemm': False}
# The number of collectives that may be in flight. XLA's latency-hiding scheduler is its default
# now. Pipelined collectives expose more communication in the 30B step compiled for 512 H100
# (docs/experiments/gpu_programs.md has the table); no time was measured.
SEVERAL_GPUS = {'xla_gpu_experimental_parallel_collective_overlap_limit': 4}


def compiler_options(device: Any, count: int = 1) -> dict[str, str | int]:
  """Returns the options for a program on `count` devices of the kind of `device`."""
  if device.platform == 'gpu':
    return GPU | (SEVERAL_GPUS if count > 1 else {})
  able = device.platform == 'tpu' and device.device_kind not in REFUSED_BY
  return dict(TPU_OPTIONS) if able else {}


class DeviceProgram:
  """A function under `jax.jit`, with the options of the devices that it is called on.

  The devices are those of the ambient mesh, or the first one there is. They are looked up at the
  first call, because that takes seconds and occupies them.
  """

  def __init__(self, function: Callable[..., object]):
    self._function = function
    functools.update_wrapper(self, function)
    self._compiled: dict[tuple[tuple[str, str | int], ...], jax.stages.Wrapped] = {}

  def __call__(self, *arguments: object) -> Any:
    """Runs the program, compiled once for each shape of its arguments."""
    return self._jitted()(*arguments)

  def lower(self, *arguments: object) -> jax.stages.Lowered:
    """Returns `jax.jit(function).lower(*arguments)`, of arrays or shapes."""
    return self._jitted().lower(*arguments)

  def _jitted(self) -> jax.stages.Wrapped:
    mesh = jax.sharding.get_mesh()
    devices = jax.devices()[:1] if mesh.empty else mesh.devices.ravel()
    options = compiler_options(devices[0], len(devices))
    key = tuple(sorted(options.items()))
    if key not in self._compiled:
      self._compiled[key] = jax.jit(self._function, compiler_options=options or None)
    return self._compiled[key]
