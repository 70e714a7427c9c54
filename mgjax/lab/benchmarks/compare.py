"""Compares our programs with those of baselines: compiled, warmed up, interleaved, reported."""

import dataclasses
import datetime
import gc
import os
import pathlib
import platform
import re
import resource
from collections.abc import Callable, Mapping, Sequence

import jax
from jax.sharding import Mesh

from mgjax.core.configuration.keys import JSON, Fields
from mgjax.core.errors import first_line
from mgjax.core.typing import Tree
from mgjax.lab.benchmarks.baselines import Baseline
from mgjax.lab.benchmarks.programs import Programs
from mgjax.lab.benchmarks.report import OURS, rated, ratios
from mgjax.lab.benchmarks.timing import (
  CompiledProgram,
  Timed,
  compile_program,
  interleave,
  repeated,
  warm_up,
)
from mgjax.parallel.chips import GIB, find_chip, peak_bytes

MIB = 2**20

Runs = dict[tuple[str, str], Timed]  # ('mgjax' or a variant of a baseline, program) -> its run
Check = Callable[[Baseline, str, Mapping[str, Timed]], None]  # of a variant's programs; it raises


@dataclasses.dataclass(frozen=True)
class PreparedPrograms:
  """Programs that are compiled, bound to arguments, and warm; `compiled` and `runs` are by name."""

  programs: Programs
  arguments: Sequence[Tree]
  compiled: Mapping[str, CompiledProgram]
  runs: Mapping[str, Timed]


@dataclasses.dataclass(frozen=True)
class Comparison:
  """The times of our programs and of baselines', as `interleave` returns them.

  Attributes:
    failed: baseline or variant -> why it has no times.
    late: programs that were compiled while others were timed.
    peak: bytes of a device that ours took, or None where the device cannot say.
  """

  timings: Mapping[tuple[str, str], Mapping[str, float]]
  failed: Mapping[str, str]
  late: int
  peak: int | None


def compile_one(programs: Programs, name: str) -> CompiledProgram:
  """Compiles one of several programs."""
  return compile_program(
    programs.programs[name],
    programs.shapes,
    donates=programs.donates,
    out_shardings=programs.out_shardings,
  )


def prepare(programs: Programs) -> PreparedPrograms:
  """Compiles programs, makes their arguments and warms them up."""
  compiled = {name: compile_one(programs, name) for name in programs.programs}
  arguments = list(programs.allocate())
  runs = {
    name: repeated(program.call, arguments, donates=programs.donates)
    for name, program in compiled.items()
  }
  for run in runs.values():
    warm_up(run)
  return PreparedPrograms(programs, arguments, compiled, runs)


def compare_programs(
  ours: PreparedPrograms,
  baselines: Sequence[Baseline],
  task: Fields,
  compilations: Sequence[float],
  *,
  rounds: int,
  check: Check | None = None,
) -> Comparison:
  """Times our programs and those of baselines, interleaved.

  Ours are prepared before, so that their peak of memory is their own; `compilations` is a list
  that grows (`counted_compilations`). `check` gets a baseline, its variant and that one's programs
  before they are timed, and raises where they do not do what they should.
  """
  peak = peak_bytes()
  runs, failed = prepare_baselines(baselines, task, check)
  runs = {(OURS, name): run for name, run in ours.runs.items()} | runs
  before = len(compilations)
  timings = interleave(runs, rounds)
  late = len(compilations) - before
  return Comparison(timings, failed, late, peak)


def machine() -> str:
  """Returns the processor's name and instructions, and the cores that this process may use."""
  info = pathlib.Path('/proc/cpuinfo')
  text = info.read_text() if info.exists() else ''
  name = re.search(r'model name\s*: (.*)', text)
  wide = [
    extension for extension in ('avx2', 'avx512f', 'amx_bf16') if f' {extension} ' in f'{text} '
  ]
  cores = len(os.sched_getaffinity(0)) if hasattr(os, 'sched_getaffinity') else os.cpu_count()
  return ' '.join([f'{cores} x', name[1] if name else platform.machine(), *wide])


def report_of(
  what: str,
  ours: PreparedPrograms,
  outcome: Comparison,
  mesh: Mesh,
  *,
  rounds: int,
  notes: Sequence[str],
  **counts: int,
) -> JSON:
  """Returns what every report has, in plain JSON values."""
  kind = mesh.devices.flat[0].device_kind
  chip = find_chip(kind)
  notes = list(notes)
  if outcome.late:
    notes.append(
      f'{outcome.late} programs were compiled while others were timed: the times are spoilt'
    )
  if chip is None:
    notes.append(f'no peak is known of {kind!r}, so there is no MFU')
  programs = rated(outcome.timings, ours.programs.flops, devices=mesh.size, chip=chip, **counts)
  for name, program in ours.compiled.items():
    programs[OURS][name] |= {
      'compile_seconds': program.seconds,
      'compiled_gib': program.bytes / GIB,
      'temporary_mib': program.temporary / MIB,
    }
  compiler = max(program.bytes for program in ours.compiled.values())
  return {
    'what': what,
    'device': kind,
    'devices': mesh.size,
    'mesh': dict(mesh.shape),
    'peak_tflops': chip and chip.flops / 1e12,
    'machine': machine(),
    'date': datetime.date.today().isoformat(),
    'jax': jax.__version__,
    'parameters': ours.programs.parameters,
    'rounds': rounds,
    'programs': programs,
    'baseline_over_mgjax': ratios(outcome.timings),
    'failed': dict(outcome.failed),
    'peak_gib': (outcome.peak or compiler) / GIB,
    'peak_from': 'device' if outcome.peak else 'compiler',
    'peak_rss_mib': resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
    'compiled_while_timed': outcome.late,
    'notes': notes,
  }


def prepare_baselines(
  baselines: Sequence[Baseline], task: Fields, check: Check | None
) -> tuple[Runs, dict[str, str]]:
  """Makes baselines and warms them up; one that fails is named, and does not stop the others.

  Returns their programs, and baseline or variant -> why it has none.
  """
  runs: Runs = {}
  failed: dict[str, str] = {}
  for baseline in baselines:
    try:
      variants = baseline.make_programs(task)
    except Exception as error:
      failed[baseline.name] = first_line(error)
      continue
    for variant, programs in variants.items():
      try:
        for run in programs.values():
          warm_up(run)
        if check is not None:
          check(baseline, variant, programs)
      except Exception as error:
        failed[variant] = first_line(error)
        continue
      runs |= {(variant, name): run for name, run in programs.items()}
  gc.collect()
  return runs, failed
