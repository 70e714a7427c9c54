"""Times data loading: random windows of video files, beside other loaders of the same windows.

Ours reads records by the loader of training; baselines read the same windows from the same files,
with as many workers as there are cores.
"""

import dataclasses
import functools
import itertools
import os
import pathlib
import tempfile
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from mgjax.benchmarks.baselines import Baseline, find_baselines
from mgjax.benchmarks.compare import prepare_baselines
from mgjax.benchmarks.report import OURS, ratios
from mgjax.benchmarks.timing import Timed, interleave, processor_seconds_of_family, warm_up
from mgjax.core.errors import ConfigError, DataError
from mgjax.core.settings import Checked, Positive, unpack
from mgjax.data.batch_order import ShapeBucket, make_ordered_batches
from mgjax.data.ingest.clip_check import COLUMNS, make_row
from mgjax.data.ingest.entries import VIDEO
from mgjax.data.loader import StepIterator
from mgjax.data.records.reader import write_records
from mgjax.data.replacement import Replacing
from mgjax.data.settings import DataSettings, Workers
from mgjax.data.shape import Rate, Shape
from mgjax.data.sources import make_sources, make_transform
from mgjax.media.video import encode_frames, stream_clip

WHAT = 'data'
FIRST = 'first batch'
# Levels of 255 that two readers of the same frames differ by on average at most: they round, and
# enlarge the two halved planes of colour, as they like.
ALIKE = 4.0
RATE = 25  # frames a second of the files

Programs = dict[str, Timed]
Windows = list[tuple[str, float]]  # (file, second that it begins at)


@dataclasses.dataclass(frozen=True)
class ClipSettings(Checked):
  """The clips that are read, by the keys of `configs/bench/data.py`.

  Attributes:
    path: folder of videos.
    seconds: of each video that are encoded.
    gops: frames from key frame to key frame; of each, all videos are encoded once.
    windows: clips that are read in one run.
    threads: of our loader; 0 is one a core.
  """

  path: str
  seconds: Rate
  gops: tuple[Positive, ...]
  windows: Positive
  frames: Positive
  fps: Rate
  height: Positive
  width: Positive
  batch_size: Positive
  threads: Workers

  @property
  def batches(self) -> int:
    """Whole batches of one run."""
    return self.windows // self.batch_size


def measure_data(
  fields: Mapping[str, Any], *, baselines: Sequence[str] = (), rounds: int = 5
) -> dict[str, Any]:
  """Times how clips are read; `configs/bench/data.py` says what `fields` hold.

  A baseline, a Python file (`baselines.py`), that cannot run is named in the report.

  Returns:
    Plain JSON values: `programs` is 'mgjax' or a baseline -> program -> seconds of one run, of
    processors too, and `clips_per_second`.

  Raises:
    ConfigError: there is no such baseline, or no whole batch.
    DataError: the videos cannot be used.
  """
  clips = unpack(ClipSettings, {k: v for k, v in fields.items() if k != 'component'}, 'config')
  if not clips.batches:
    raise ConfigError(
      f'windows = {clips.windows}: expected at least one batch of {clips.batch_size}'
    )
  found = find_baselines(baselines, WHAT, devices=1)
  cores = len(os.sched_getaffinity(0)) if hasattr(os, 'sched_getaffinity') else os.cpu_count() or 1
  with tempfile.TemporaryDirectory() as folder:
    footage = _make_footage(clips, pathlib.Path(folder))
    ours = _programs(clips, pathlib.Path(folder), footage, clips.threads or cores)
    theirs, failed = prepare_baselines(found, _task(clips, footage, cores), _make_check(ours))
    for run in ours.values():
      warm_up(run)
    runs = {(OURS, name): run for name, run in ours.items()} | theirs
    timings = interleave(runs, rounds, processor_seconds_of_family)
  count = clips.batches * clips.batch_size
  programs: dict[str, dict[str, Any]] = {}
  for (name, program), times in timings.items():
    rate = {} if program == FIRST else {'clips_per_second': count / times['median']}
    programs.setdefault(name, {})[program] = {**times, **rate}
  return {
    'what': WHAT,
    'cores': cores,
    'threads': clips.threads or cores,
    'rounds': rounds,
    'clips': [count, clips.frames, clips.height, clips.width],
    'fps': clips.fps,
    'batch_size': clips.batch_size,
    'programs': programs,
    'baseline_over_mgjax': ratios(timings),
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
      times = ', '.join(f'{key} {numbers[key]:.4g} s' for key in ('median', 'min', 'cpu'))
      rate = f'{numbers["clips_per_second"]:.4g} clips/s, ' if program != FIRST else ''
      lines.append(f'{name}, {program}: {rate}{times}')
  for name, variant in report['baseline_over_mgjax'].items():
    for program, times in variant.items():
      lines.append(
        f'{name} / {OURS}, {program}: {times["median"]:.2f} (median), {times["min"]:.2f} (min), '
        f'{times["cpu"]:.2f} (processor seconds)'
      )
  return '\n'.join(lines + [f'{name} is absent: {why}' for name, why in report['failed'].items()])


def _task(clips: ClipSettings, footage: Mapping[int, Windows], cores: int) -> dict[str, Any]:
  """Returns what a baseline has to do: programs of whole epochs, and the first batch of one."""
  return {
    'what': WHAT,
    'windows': {f'gop {gop}': windows for gop, windows in footage.items()},
    'first': (FIRST, next(iter(footage.values()))),
    'frames': clips.frames,
    'fps': clips.fps,
    'size': (clips.height, clips.width),
    'batch_size': clips.batch_size,
    'workers': cores,
  }


def _programs(
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

  programs = {f'gop {gop}': functools.partial(read, gop, clips.batches) for gop in footage}
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


def _make_footage(clips: ClipSettings, directory: pathlib.Path) -> dict[int, Windows]:
  """Encodes the beginning of every video of a folder, and writes records of random windows of them.

  The files are as high as the samples and may be wider. A window is a row of the records with the
  whole file it is of, as it would be of a clip that is read once an epoch. `gop_<n>/` gets files,
  `gop_<n>/records/` their windows, the same ones each time. DataError: no video is long enough.
  """
  length, found = clips.frames / clips.fps, {}
  if not os.path.isdir(clips.path):
    raise DataError(f'{clips.path!r} is no folder; give one with videos')
  paths = sorted(pathlib.Path(clips.path).iterdir())
  for gop in clips.gops:
    folder = directory / f'gop_{gop}'
    folder.mkdir(parents=True)
    files = {}
    for path in (each for each in paths if each.suffix.lower() in VIDEO.suffixes):
      name = str(folder / f'{path.stem}.mp4')
      if (seconds := _encode(path, pathlib.Path(name), clips, gop)) > length + 2 / RATE:
        files[name] = seconds
    if not files:
      raise DataError(f'{clips.path!r} holds no video of more than {length:g} s; give some')
    generator = np.random.default_rng(0)
    names = generator.choice(sorted(files), clips.windows)
    found[gop] = [
      (str(name), float(generator.uniform(0, files[name] - length - 1 / RATE))) for name in names
    ]
    rows = _Rows(found[gop])
    write_records(folder / 'records', rows, rows_per_shard=64, columns=COLUMNS)
  return found


class _Rows:
  """Rows of records: a window each, with the whole file that it is of."""

  def __init__(self, windows: Windows):
    self._windows = windows

  def __len__(self) -> int:
    return len(self._windows)

  def __getitem__(self, index: int) -> dict[str, Any]:
    name, start = self._windows[index]
    return make_row(pathlib.Path(name).read_bytes(), 'footage', name, start=start)


def _encode(source: pathlib.Path, target: pathlib.Path, clips: ClipSettings, gop: int) -> float:
  """Encodes the first seconds of a video; returns how many there are."""
  size = clips.height, round(clips.width * 1.75 / 2) * 2
  images = stream_clip(source, size=size, fps=RATE)
  images = list(itertools.islice(images, round(RATE * clips.seconds)))
  frames = ((index / RATE, (index + 1) / RATE, image) for index, image in enumerate(images))
  target.write_bytes(encode_frames(frames, fps=RATE, clock=RATE, crf=20.0, gop=gop))
  return len(images) / RATE
