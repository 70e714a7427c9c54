"""diffusers' Euler scheduler around the same network in PyTorch, to be timed in turns with ours.

python -m launch.bench --config=configs/bench/cpu.py --what=sample --latents=1,4,32,32,16 \
  --baseline=tests/oracles/diffusers_sampler.py
"""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import diffusers
import torch

from tests.oracles.torch_backbone import Backbone, Sizes

WHAT = ('sample',)


def make_programs(task: Mapping[str, Any]) -> dict[str, dict[str, Callable[[], Any]]]:
  """Makes the first step and the whole loop, on random data; noise is at sigma 1, data at 0."""
  if task['solver'] != 'euler' or task['platform'] != 'cpu':
    raise ValueError(f'this loop is Euler on a CPU, not {task["solver"]} on a {task["platform"]}')
  torch.set_num_threads(task['threads'])
  sizes = Sizes(**{field.name: task[field.name] for field in dataclasses.fields(Sizes)})
  dtype = getattr(torch, task['dtype'])
  model = Backbone(sizes).to(dtype).eval()
  noise = torch.randn(sizes.latents, dtype=dtype)
  rows = len(noise) * (1 if task['guidance'] == 1 else 2)
  context = torch.randn(rows, sizes.context, sizes.dim, dtype=dtype)
  mask = torch.ones(rows, sizes.context, dtype=torch.bool)

  def velocity(x: torch.Tensor, time: float) -> torch.Tensor:
    times = torch.full((rows,), time, dtype=dtype)
    u = model(x.repeat(rows // len(x), 1, 1, 1, 1), times, context, mask)
    if rows == len(x):
      return u
    with_text, without = u.chunk(2)
    return without + task['guidance'] * (with_text - without)

  sample = make_loop(velocity, noise, task['times'])
  name = f'diffusers {diffusers.__version__}'
  return {name: {'guided_step': lambda: sample(1), 'sample': lambda: sample(None)}}


def make_loop(
  velocity: Callable[[torch.Tensor, float], torch.Tensor],
  noise: torch.Tensor,
  times: Sequence[float],
) -> Callable[[int | None], torch.Tensor]:
  """Makes sample(steps), of the first steps or of all: sigma is 1 - t, and v is against time."""

  @torch.inference_mode()
  def sample(steps: int | None) -> torch.Tensor:
    scheduler = diffusers.FlowMatchEulerDiscreteScheduler()
    scheduler.set_timesteps(sigmas=[1 - time for time in times[:-1]])
    x = noise
    for place, time in list(zip(scheduler.timesteps, times, strict=False))[:steps]:
      x = scheduler.step(-velocity(x, time), place, x).prev_sample
    return x

  return sample
