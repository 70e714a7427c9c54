"""What XLA's compiler must know of a GPU to compile for it where there is none.

The numbers are those of OpenXLA's own descriptions (xla/backends/gpu/target_config/specs,
Apache-2.0) and, of the RTX 4090, which has none, those of NVIDIA's Ada whitepaper and CUDA's table
of compute capability 8.9. The text that `target_config` makes of them is a GpuTargetConfigProto.
"""

import dataclasses

from mgjax.core.errors import ConfigError
from mgjax.parallel.chips import KINDS

_CUDNN = (9, 10)  # major and minor: the oldest that knows all of these chips


@dataclasses.dataclass(frozen=True)
class GpuTarget:
  """One kind of GPU: its multiprocessors, memories in bytes, clock in GHz and capability.

  The capability is major and minor, as CUDA counts them.
  """

  cores: int
  units: int  # of float32, a core
  bandwidth: float  # bytes a second
  cache: int
  clock: float
  memory: int
  capability: tuple[int, int]
  shared: int = 233_472  # a core, of which one block may ask for all but a KiB
  threads: int = 2048  # a core


TARGETS = {
  'a100': GpuTarget(108, 64, 2.03904e12, 41_943_040, 1.41, 85_100_068_864, (8, 0), shared=167_936),
  'h100': GpuTarget(132, 128, 3.35232e12, 52_428_800, 1.98, 84_942_979_072, (9, 0)),
  'h200': GpuTarget(132, 128, 4.8e12, 52_428_800, 1.98, 151_397_597_184, (9, 0)),
  'b200': GpuTarget(148, 128, 7.67232e12, 132_644_864, 1.965, 191_514_411_008, (10, 0)),
  'gb200': GpuTarget(152, 128, 7.928064e12, 135_528_448, 2.062, 197_897_748_480, (10, 0)),
  'rtx4090': GpuTarget(
    128,
    128,
    1.008e12,
    75_497_472,
    2.52,
    25_757_220_864,
    (8, 9),
    shared=102_400,
    threads=1536,
  ),
}


def target_config(chip: str) -> str:
  """Returns the description of a chip as XLA reads it; ConfigError if there is none."""
  if chip not in TARGETS:
    raise ConfigError(
      f'nothing can be compiled for {chip}: its description is missing; there are those of '
      f'{", ".join(TARGETS)}, and mgjax/lab/planning/programs/gpu_targets.py takes more'
    )
  target = TARGETS[chip]
  name = next(kind for kind, chip_name in KINDS.items() if chip_name == chip)
  info = {
    'threads_per_block_limit': 1024,
    'threads_per_warp': 32,
    'shared_memory_per_block': 49_152,
    'shared_memory_per_core': target.shared,
    'threads_per_core_limit': target.threads,
    'core_count': target.cores,
    'fpus_per_core': target.units,
    'block_dim_limit_x': 2**31 - 1,
    'block_dim_limit_y': 65_535,
    'block_dim_limit_z': 65_535,
    'memory_bandwidth': round(target.bandwidth),
    'l2_cache_size': target.cache,
    'clock_rate_ghz': target.clock,
    'device_memory_size': target.memory,
    'shared_memory_per_block_optin': target.shared - 1024,
    'registers_per_core_limit': 65_536,
    'registers_per_block_limit': 65_536,
  }
  fields = ' '.join(f'{key}: {value}' for key, value in info.items())
  major, minor = target.capability
  return (
    f'gpu_device_info {{ {fields} '
    f'cuda_compute_capability {{ major: {major} minor: {minor} }} }} '
    f'platform_name: "CUDA" dnn_version_info {{ major: {_CUDNN[0]} minor: {_CUDNN[1]} }} '
    f'device_description_str: "{name}"'
  )
