"""Benchmarks data loading: clips, the first batch, and latents.

Clips are random windows of video files, read from records by the loader of training; baselines read
the same windows from the same files, with as many workers as there are cores. Latents are read from
records by threads, and compared with threads that copy as many bytes within memory.
"""

import concurrent.futures
import dataclasses
import functools
import os
import pathlib
import tempfile
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from ml_collections import ConfigDict

from mgjax.benchmarks.baselines import Baseline, find_baselines
from mgjax.benchmarks.compare import prepare_baselines
from mgjax.benchmarks.report import OURS, ratios
from mgjax.benchmarks.sample_data import (
  ClipSettings,
  LatentSettings,
  Windows,
  make_footage,
  make_latents,
)
from mgjax.benchmarks.timing import Timed, interleave, processor_seconds_of_family, warm_up
from mgjax.core.errors import ConfigError, DataError
from mgjax.core.settings import checked, fields_of, unpack
from mgjax.data.buckets import Shape
from mgjax.data.loader import StepIterator
from mgjax.data.mixture import ShapeBucket, make_ordered_batches
from mgjax.data.records.reader import Records
from mgjax.data.replacement import Replacing
from mgjax.data.settings import DataSettings, Workers
from mgjax.data.sources import make_sources, make_transform

WHAT = 'data'
FIRST = 'first batch'
COPY = 'memory copy'
# Levels of 255 that two readers of the same frames differ by on average at most: they round, and
# enlarge the two halved planes of colour, as they like.
ALIKE = 4.0

Programs = dict[str, Timed]


def measure_data(
  config: ConfigDict, *, baselines: Sequence[str] = (), rounds: int = 5, directory: str = ''
) -> dict[str, Any]:
  """Times how clips and latents are read.

  Args:
    config: `configs/bench/data.py` says what it holds.
    baselines: Python files (`baselines.py`); one that cannot run is named in the report.
    rounds: timed runs of every program; all take turns.
    directory: for the files, which are removed again; by default where temporary files go.

  Returns:
    Plain JSON values: `programs` is 'mgjax' or a baseline -> program -> seconds of one run, of
    processors too,
    and what it reads in a second: `clips_per_second`, or `gigabytes_per_second` of latents.

  Raises:
    ConfigError: there is no such baseline, or no whole batch.
    DataError: the videos cannot be used.
  """
  names = [each.name for each in dataclasses.fields(ClipSettings)]
  clips = unpack(ClipSettings, {name: config[name] for name in names}, 'config')
  latents = unpack(LatentSettings, fields_of(config, 'latents'), 'latents')
  threads = checked(Workers, config.threads, 'threads')
  if not clips.batches or latents.rows < latents.batch_size:
    raise ConfigError('windows and latents.rows must be at least one batch of theirs')
  found = find_baselines(baselines, WHAT, devices=1)
  cores = len(os.sched_getaffinity(0)) if hasattr(os, 'sched_getaffinity') else os.cpu_count() or 1
  threads = threads or cores
  with tempfile.TemporaryDirectory(dir=directory or None) as folder:
    footage = make_footage(clips, pathlib.Path(folder))
    ours = _clip_programs(clips, pathlib.Path(folder), footage, threads)
    theirs, failed = prepare_baselines(found, _task(clips, footage, cores), _make_check(ours))
    for run in ours.values():
      warm_up(run)
    runs = {(OURS, name): run for name, run in ours.items()} | theirs
    timings = interleave(runs, rounds, processor_seconds_of_family)
    records = make_latents(latents, pathlib.Path(folder) / 'latents')
    programs_of_latents, size = _latent_programs(records, latents.batch_size, cores)
    for run in programs_of_latents.values():
      warm_up(run)
    timings |= interleave(programs_of_latents, rounds, processor_seconds_of_family)
  count = clips.batches * clips.batch_size
  programs: dict[str, dict[str, Any]] = {}
  for (name, program), times in timings.items():
    rate = {'clips_per_second': count / times['median']}
    if program not in ours:
      rate = {'gigabytes_per_second': size / times['median'] / 1e9}
    programs.setdefault(name, {})[program] = {**times, **({} if program == FIRST else rate)}
  return {
    'what': WHAT,
    'cores': cores,
    'threads': threads,
    'rounds': rounds,
    'clips': [count, clips.frames, clips.height, clips.width],
    'fps': clips.fps,
    'batch_size': clips.batch_size,
    'latents': [latents.rows, *latents.shape],
    'programs': programs,
    'baseline_over_mgjax': ratios({key: timings[key] for key in runs}),
    'copy_over_mgjax': {
      program: timings[COPY, COPY]['median'] / timings[OURS, program]['median']
      for name, program in programs_of_latents
      if name == OURS
    },
    'failed': failed,
  }


def describe_data(report: Mapping[str, Any]) -> str:
  """Returns a report of `measure_data` as text."""
  clips, frames, height, width = report['clips']
  lines = [
    f'{clips} clips of {frames} frames of {height} x {width} at {report["fps"]} a second, in '
    f'batches of {report["batch_size"]}, on {report["cores"]} cores in {report["threads"]} threads'
  ]
  for name, programs in report['programs'].items():
    for program, numbers in programs.items():
      rates = [
        f'{numbers[f"{unit}_per_second"]:.4g} {short}/s'
        for unit, short in (('clips', 'clips'), ('gigabytes', 'GB'))
        if f'{unit}_per_second' in numbers
      ]
      times = ', '.join(f'{key} {numbers[key]:.4g} s' for key in ('median', 'min', 'cpu'))
      lines.append(f'{name}, {program}: {", ".join([*rates, times])}')
  for name, variant in report['baseline_over_mgjax'].items():
    for program, times in variant.items():
      lines.append(
        f'{name} / {OURS}, {program}: {times["median"]:.2f} (median), {times["min"]:.2f} (min), '
        f'{times["cpu"]:.2f} (processor seconds)'
      )
  for program, ratio in report['copy_over_mgjax'].items():
    lines.append(f'{OURS}, {program}: {ratio:.0%} of the speed of a {COPY}')
  return '\n'.join(lines + [f'{name} is absent: {why}' for name, why in report['failed'].items()])


def _task(clips: ClipSettings, footage: Mapping[int, Windows], cores: int) -> dict[str, Any]:
  """Returns what a baseline has to do: programs of whole epochs, and the first batch of one."""
  return {
    'what': WHAT,
    'windows': {_name(gop): windows for gop, windows in footage.items()},
    'first': (FIRST, next(iter(footage.values()))),
    'frames': clips.frames,
    'fps': clips.fps,
    'size': (clips.height, clips.width),
    'batch_size': clips.batch_size,
    'workers': cores,
  }


def _name(gop: int) -> str:
  return f'gop {gop}'


def _clip_programs(
  clips: ClipSettings, folder: pathlib.Path, footage: Mapping[int, Windows], threads: int
) -> Programs:
  """Returns our programs; each gives the first batch that it reads."""

  def read(gop: int, batches: int) -> np.ndarray:
    data = DataSettings('records', path=str(folder / f'gop_{gop}' / 'records'), fps=clips.fps)
    shape = Shape(clips.frames, clips.height, clips.width, (clips.fps, clips.fps))
    source = Replacing(make_sources(data, {WHAT: shape}, 'train')[WHAT], WHAT)
    bucket = ShapeBucket(WHAT, source, clips.batch_size, 1, make_transform((), ('video',)))
    with StepIterator(make_ordered_batches(bucket, clips.batches), threads=threads) as iterator:
      first = next(iterator)
      for _ in range(batches - 1):
        next(iterator)
      if iterator.replaced:
        raise DataError('a clip of the benchmark could not be read')
    return first['video']

  programs = {_name(gop): functools.partial(read, gop, clips.batches) for gop in footage}
  return programs | {FIRST: functools.partial(read, next(iter(footage)), 1)}


def _make_check(ours: Programs) -> Callable[[Baseline, str, Mapping[str, Timed]], None]:
  """Makes what compares a baseline's first batch with ours."""

  def check(baseline: Baseline, variant: str, programs: Mapping[str, Timed]) -> None:
    del baseline
    for name, run in programs.items():
      found, expected = np.asarray(run()), np.asarray(ours[name]())
      if found.shape != expected.shape or found.dtype != np.uint8:
        raise DataError(f'{variant} gives {found.dtype}{found.shape}, expected {expected.shape}')
      apart = float(np.abs(found.astype(np.float32) - expected).mean())
      if apart > ALIKE:
        raise DataError(f'{variant} gives other frames: {apart:.1f} of 255 apart on average')

  return check


def _latent_programs(
  records: Records, batch_size: int, cores: int
) -> tuple[dict[tuple[str, str], Timed], int]:
  """Returns what reads all latents in some order, and the copy of as many bytes; and how many."""
  whole = len(records) // batch_size * batch_size
  order = np.random.default_rng(1).permutation(len(records))[:whole].tolist()
  given = [records[index]['latents'] for index in order]
  pool = concurrent.futures.ThreadPoolExecutor(cores)
  bucket = ShapeBucket(WHAT, records, batch_size, 1, make_transform((), ('latents',)))
  parts = [order[core::cores] for core in range(cores)]
  copied = [given[core::cores] for core in range(cores)]

  def rows() -> None:
    # One call a thread: handing over each row alone would cost as much as reading it.
    list(pool.map(lambda part: [records[index]['latents'] for index in part], parts))

  def batches() -> None:
    count = whole // batch_size
    with StepIterator(make_ordered_batches(bucket, count), threads=cores) as iterator:
      for _ in range(count):
        next(iterator)

  def copy() -> None:
    list(pool.map(lambda arrays: [array.copy() for array in arrays], copied))

  programs = {(OURS, 'latents'): rows, (OURS, 'batches of latents'): batches, (COPY, COPY): copy}
  return programs, sum(array.nbytes for array in given)
