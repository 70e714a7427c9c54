"""A video configuration against the clock, on the devices that there are, alone or with rivals.

It stands beside the planner because it answers the same question by measuring: the same sizes
(`workload.py`) against the same peaks (`chips.py`).
"""

import dataclasses
import gc
import math
import resource
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
from ml_collections import ConfigDict

from mgjax.backbone.patch import grid
from mgjax.core.errors import ConfigError
from mgjax.parallel.mesh import make_mesh
from mgjax.planning.chips import GIB
from mgjax.planning.results import ATTENTION_COUNTED, COUNTED, OURS, find_chip, rated, ratios
from mgjax.planning.rivals import Rival, find_rivals, make_task
from mgjax.planning.subjects import Subject, make_subject
from mgjax.planning.timing import (
  Compiled,
  Timed,
  capacity,
  compile_program,
  counted_compilations,
  estimate_depth,
  halve_until_it_fits,
  is_out_of_memory,
  peak_bytes,
  race,
  repeated,
  warm_up,
)
from mgjax.planning.workload import make_workload

PROFILED = 3  # runs of each program in a trace
MIB = 2**20

Runs = dict[tuple[str, str], Timed]  # (contender, program) -> its run


@dataclasses.dataclass(frozen=True)
class _Ours:
  """A subject with its programs compiled, bound to arguments, and warm."""

  subject: Subject
  compiled: Mapping[str, Compiled]
  runs: Mapping[str, Timed]


def measure(
  config: ConfigDict,
  what: str = 'step',
  *,
  latents: tuple[int, ...] | None = None,
  layers: int | None = None,
  rivals: Sequence[str] = (),
  rounds: int = 5,
  profile: str = '',
  devices: Sequence[Any] | None = None,
) -> dict[str, Any]:
  """Times the programs of a video configuration on random data.

  Args:
    config: of the part 'video'; its mesh and rules say how devices share the work.
    what: 'step', 'forward', 'blocks' or 'attention' (`subjects.py`).
    latents: shape (b t h w c) of a batch; by default that of the bucket with the most tokens.
    layers: of the backbone; None takes the configuration's, 0 as many of these as fit.
    rivals: 'jax.nn', or Python files (`rivals.py`); all take turns in this process.
    rounds: timed runs of every program.
    profile: directory for a trace of some more runs; '' for none.
    devices: by default all there are.

  Returns:
    Plain JSON values: `programs` is contender -> program -> seconds, rates of the median, memory.

  Raises:
    ConfigError: something does not exist, does not divide, or does not fit into memory.
  """
  if what == 'attention' and layers is not None:
    raise ConfigError('attention alone has no layers to choose; leave --layers away')
  work = make_workload(config)
  latents = tuple(latents or (config.buckets[work.bucket].batch_size, *work.latents))
  mesh = make_mesh(config.mesh.to_dict(), config.rules, devices=devices)
  found = find_rivals(rivals, what, mesh.size)

  def make(depth: int) -> Subject:
    return make_subject(what, _with_depth(config, depth), latents, work.context, mesh)

  with jax.set_mesh(mesh), counted_compilations() as compilations:
    ours, depth, notes = _fitted(make, config.model.depth, layers)
    peak = peak_bytes()
    task = make_task(what, _with_depth(config, depth), latents, work.context)
    runs, failed = _enter(found, task)
    runs = {(OURS, name): run for name, run in ours.runs.items()} | runs
    before = len(compilations)
    timings = race(runs, rounds)
    if late := len(compilations) - before:
      notes.append(f'{late} programs were compiled while others were timed: the times are spoilt')
    if profile:
      _trace(ours.runs, profile)

  kind = mesh.devices.flat[0].device_kind
  if find_chip(kind) is None:
    notes.append(f'no peak is known of {kind!r}, so there is no MFU')
  compiler = max(program.bytes for program in ours.compiled.values())
  return {
    **_circumstances(config, what, latents, work.context, mesh),
    'layers': 0 if what == 'attention' else depth,
    'layers_configured': config.model.depth,
    'parameters': ours.subject.parameters,
    'rounds': rounds,
    'programs': _programs(ours, timings, config, latents, mesh),
    'rival_over_mgjax': ratios(timings),
    'failed': failed,
    'peak_gib': (peak or compiler) / GIB,
    'peak_from': 'device' if peak else 'compiler',
    'peak_rss_mib': resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
    'compiled_while_timed': late,
    'counted': ATTENTION_COUNTED if what == 'attention' else COUNTED,
    'notes': notes,
  }


def _circumstances(config: ConfigDict, what: str, latents, context: int, mesh) -> dict[str, Any]:
  kind = mesh.devices.flat[0].device_kind
  chip = find_chip(kind)
  return {
    'what': what,
    'device': kind,
    'devices': mesh.size,
    'mesh': dict(mesh.shape),
    'peak_tflops': chip and chip.flops / 1e12,
    'jax': jax.__version__,
    'latents': list(latents),
    'tokens_per_sample': math.prod(grid(latents, tuple(config.model.patch))),
    'context': context,
    **{name: config.model[name] for name in ('compute', 'remat', 'attention', 'exchange')},
  }


def _programs(ours: _Ours, timings, config: ConfigDict, latents, mesh) -> dict[str, Any]:
  """Returns contender -> program -> its numbers; of ours with what the compiler says."""
  tokens = latents[0] * math.prod(grid(latents, tuple(config.model.patch)))
  programs = rated(
    timings,
    ours.subject.flops,
    rows=latents[0],
    tokens=tokens,
    devices=mesh.size,
    chip=find_chip(mesh.devices.flat[0].device_kind),
  )
  for name, program in ours.compiled.items():
    programs[OURS][name] |= {
      'compile_seconds': program.seconds,
      'compiled_gib': program.bytes / GIB,
      'temporary_mib': program.temporary / MIB,
    }
  return programs


def _fitted(
  make: Callable[[int], Subject], configured: int, layers: int | None
) -> tuple[_Ours, int, list[str]]:
  """Compiles and warms up with the layers that are asked for, or with as many as fit."""
  if layers != 0:
    depth = configured if layers is None else layers
    try:
      return _prepare(make(depth)), depth, []
    except Exception as error:
      if not is_out_of_memory(error):
        raise
      message = _first_line(error)
    raise ConfigError(
      f'out of memory with {depth} layers ({message}); take --layers=0 for as many as fit, another '
      '--config.model.remat, or fewer rows or tokens in --latents'
    )

  def needed(depth: int) -> int:
    subject = make(depth)
    *_, last = subject.programs  # the one with a backward pass
    return _compile(subject, last).bytes

  depth = estimate_depth(configured, capacity(), needed)
  ours, depth, notes = halve_until_it_fits(lambda depth: _prepare(make(depth)), depth)
  return ours, depth, [*notes, f'as many layers as fit: {depth} of {configured}']


def _compile(subject: Subject, name: str) -> Compiled:
  return compile_program(
    subject.programs[name],
    subject.shapes,
    donates=subject.donates,
    out_shardings=subject.out_shardings,
  )


def _prepare(subject: Subject) -> _Ours:
  compiled = {name: _compile(subject, name) for name in subject.programs}
  arguments = list(subject.allocate())
  runs = {
    name: repeated(program.call, arguments, donates=subject.donates)
    for name, program in compiled.items()
  }
  for run in runs.values():
    warm_up(run)
  return _Ours(subject, compiled, runs)


def _enter(rivals: Sequence[Rival], task: Mapping[str, Any]) -> tuple[Runs, dict[str, str]]:
  """Makes rivals and warms them up; one that fails is named, and does not stop the others."""
  runs: Runs = {}
  failed: dict[str, str] = {}
  for rival in rivals:
    try:
      variants = rival.make_programs(task)
    except Exception as error:
      failed[rival.name] = _first_line(error)
      continue
    for variant, programs in variants.items():
      try:
        for run in programs.values():
          warm_up(run)
      except Exception as error:
        failed[variant] = _first_line(error)
        continue
      runs |= {(variant, name): run for name, run in programs.items()}
  gc.collect()
  return runs, failed


def _trace(runs: Mapping[str, Timed], directory: str) -> None:
  with jax.profiler.trace(directory):
    for name, run in runs.items():
      for _ in range(PROFILED):
        with jax.profiler.TraceAnnotation(f'{OURS} {name}'):
          run()


def _with_depth(config: ConfigDict, depth: int) -> ConfigDict:
  changed = config.copy_and_resolve_references()
  changed.model.depth = depth
  changed.model.unroll = min(config.model.unroll, depth)
  return changed


def _first_line(error: Exception) -> str:
  return (str(error).splitlines() or [type(error).__name__])[0]
