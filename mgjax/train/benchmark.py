"""The training step against the clock, alone or in turns with a rival."""

import importlib.util
import math
import os
import pathlib
import resource
import time
from collections.abc import Callable, Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from mgjax.core.errors import ConfigError
from mgjax.core.tree import count_parameters
from mgjax.flow.objective import make_objective
from mgjax.train.average import start_average
from mgjax.train.flops import backbone_flops
from mgjax.train.run import make_run_optimizer
from mgjax.train.state import State
from mgjax.train.step import make_step
from mgjax.train.video_part import make_video_model, prepare_prompts

TimedStep = Callable[[], float]  # takes one step and returns its loss, so that it has happened


def measure(
  config: ConfigDict, latents: tuple[int, ...], *, rival: str = '', rounds: int = 5
) -> dict[str, Any]:
  """Times the training step of a video configuration on random data.

  Args:
    config: of the part 'video'.
    latents: shape (b t h w c) of a batch.
    rival: a Python file with `Sizes` and `make_step(sizes, threads) -> step()`, the same network in
      another library; '' for none.
    rounds: steps of each that are timed.

  Returns:
    Plain JSON values: wall and processor seconds of a step (the minimum is the time that the
    machine disturbed least), tokens and operations a second, memory; and, with a rival, how many
    times its seconds are ours.

  Raises:
    ConfigError: the configuration is not of a video model, or there is no such rival.
  """
  if config.part != 'video':
    raise ConfigError(f'the bench times video models; this configuration is of {config.part!r}')
  ours, about = _make_ours(config, latents)
  steps = {'mgjax': ours}
  if rival:
    steps['rival'] = _make_rival(rival, config, latents)
  timings = race(steps, rounds)
  best = timings['mgjax']['min']
  report = about | {
    'timings': timings,
    'tokens_per_second': about['tokens'] / best,
    'gflops_per_second': about['flops'] / best / 1e9,
    'peak_rss_mib': resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
  }
  if rival:
    report['rival_over_mgjax'] = {
      which: timings['rival'][which] / timings['mgjax'][which] for which in timings['mgjax']
    }
  return report


def race(steps: Mapping[str, TimedStep], rounds: int) -> dict[str, dict[str, float]]:
  """Times steps in turns, after one untimed step each, so that a busy machine is busy for all.

  Returns:
    Name -> minimum and median of the wall seconds, and minimum of the processor seconds.
  """
  taken: dict[str, list[tuple[float, float]]] = {name: [] for name in steps}
  for step in steps.values():
    step()
  for _ in range(rounds):
    for name, step in steps.items():
      wall, cpu = time.perf_counter(), time.process_time()
      step()
      taken[name].append((time.perf_counter() - wall, time.process_time() - cpu))
  return {
    name: {
      'min': min(wall for wall, _ in times),
      'median': float(np.median([wall for wall, _ in times])),
      'cpu': min(cpu for _, cpu in times),
    }
    for name, times in taken.items()
  }


def _make_ours(config: ConfigDict, latents: tuple[int, ...]) -> tuple[TimedStep, dict[str, Any]]:
  """Compiles the step that a run takes, and describes it."""
  model = make_video_model(config)
  length = config.model.conditionings.text.length
  batch = prepare_prompts(model, ['x' * (length - 1)] * latents[0], None)  # no padding
  batch['latents'] = jax.random.normal(jax.random.key(0), latents)
  example = (batch['latents'], jnp.zeros(latents[0]), batch, {})
  params = nn.unbox(jax.jit(model.init)(jax.random.key(0), *example))['params']
  optimizer = make_run_optimizer(config)
  objective = make_objective(dropout=config.objective.dropout.to_dict())
  step = make_step(model, objective, optimizer, seed=0, decay=config.train.decay)
  state = State(jnp.zeros((), jnp.int32), params, optimizer.init(params), start_average(params))
  begin = time.perf_counter()
  compiled = jax.jit(step, donate_argnums=0).lower(state, batch).compile()
  about = {
    'device': jax.devices()[0].device_kind,
    'parameters': count_parameters(params),
    'tokens': math.prod(latents[:4]) // math.prod(config.model.patch),
    'flops': backbone_flops(model.backbone, latents, length).training,
    'compile_seconds': time.perf_counter() - begin,
    'temporary_mib': compiled.memory_analysis().temp_size_in_bytes / 2**20,
  }

  def run() -> float:
    nonlocal state
    state, metrics = compiled(state, batch)
    return float(metrics['loss'])

  return run, about


def _make_rival(path: str, config: ConfigDict, latents: tuple[int, ...]) -> TimedStep:
  """Loads a rival from its file and gives it our sizes and processors."""
  if not pathlib.Path(path).is_file():
    raise ConfigError(f'--rival={path}: there is no such file')
  spec = importlib.util.spec_from_file_location('rival', path)
  rival = importlib.util.module_from_spec(spec)
  spec.loader.exec_module(rival)
  names = ('dim', 'depth', 'heads', 'hidden', 'positions', 'patch', 'epsilon')
  fields = {name: config.model[name] for name in names}
  length = config.model.conditionings.text.length
  return rival.make_step(
    rival.Sizes(**fields, latents=latents, context=length), threads=len(os.sched_getaffinity(0))
  )
