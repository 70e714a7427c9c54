"""Makes the sources of video and image samples that a configuration names."""

import dataclasses
import functools
import json
import os
import pathlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, TypeVar

import numpy as np

from mgjax.core.configuration.keys import Fields
from mgjax.core.errors import ConfigError, DataError, check_one_of
from mgjax.core.typing import Sample, Wrapped
from mgjax.data.buckets import sort_out
from mgjax.data.clip_index import ClipIndex, index_of_clips, probe_entries, recorded_clips
from mgjax.data.clips import InMemory, VideoClips, probe_video
from mgjax.data.ingest.entries import PLAIN, VIDEO, Captions, Medium, RejectedEntry
from mgjax.data.records.reader import Records
from mgjax.data.records.storage import inside, open_storage
from mgjax.data.records.writer import MANIFEST
from mgjax.data.settings import AudioShape, DataSettings
from mgjax.data.shape import Shape, whole
from mgjax.data.source import Source
from mgjax.data.synthetic_datasets import WORLDS, open_world, source_of

SPLITS = ('train', 'validation')
EMPTY = 'empty.json'  # beside the latents of a split: the buckets that have none
_RECORDED = ('records',)  # kinds whose clips were probed before
Report = str | os.PathLike[str] | None
_Shape = TypeVar('_Shape', Shape, AudioShape)
_Made = TypeVar('_Made', bound=Source)


def make_sources(
  data: DataSettings, shapes: Mapping[str, Shape], split: str, report: Report = None
) -> dict[str, Source]:
  """Makes the sources of the buckets' samples: {'video' or 'latents', 'caption', 'fps'}.

  Buckets that no clip belongs to are left out; where `data.latents` is given, those are read. Clips
  have no split of their own: `validation_path` names others, without it training clips validate.

  Raises:
    ConfigError: the kind or a source is unknown.
    DataError: there is no usable data.
  """
  if data.latents:
    return dict(latent_sources(data, shapes, split))
  return from_each_source(data, shapes, functools.partial(_make_sources, split), report)


def _make_sources(
  split: str, data: DataSettings, shapes: Mapping[str, Shape], report: Report
) -> dict[str, Source]:
  makers = {**dict.fromkeys(WORLDS, _world), 'clips': _clips, 'records': _clips}
  check_one_of(f'unknown data kind {data.kind!r}', data.kind, makers)
  return makers[data.kind](data, shapes, split, report)


def from_each_source(
  data: DataSettings,
  shapes: Mapping[str, _Shape],
  make: Callable[[DataSettings, dict[str, _Shape], Report], Mapping[str, _Made]],
  report: Report = None,
) -> dict[str, _Made]:
  """Returns the samples of all buckets, in the buckets' order.

  Args:
    make: (data of one source, shapes of its buckets, report) -> bucket -> samples; buckets without
      any are left out. Clips are assigned to buckets of their own source alone.
    report: where rejected clips are listed: of the source 'edits' in `rejected_edits.jsonl` beside
      `rejected.jsonl`.

  Raises:
    ConfigError: a bucket names a source that there is not.
  """
  of = {name: data.of(name) for name in dict.fromkeys(shape.source for shape in shapes.values())}
  samples = {}
  for name, settings in of.items():
    mine = {
      bucket: dataclasses.replace(shape, source='')
      for bucket, shape in shapes.items()
      if shape.source == name
    }
    if report is not None and name:
      path = pathlib.Path(report)
      samples |= make(settings, mine, path.with_name(f'{path.stem}_{name}{path.suffix}'))
    else:
      samples |= make(settings, mine, report)
  return {bucket: samples[bucket] for bucket in shapes if bucket in samples}


def make_world(data: DataSettings, split: str, **options: Any) -> Any:
  """Makes the source of the synthetic dataset in `config.data`; see `open_world`."""
  return open_world(data.kind, data.world, split, **options)


def stored_latents(
  latents: str, buckets: Iterable[str], split: str, skip_missing: bool = False
) -> dict[str, Records]:
  """Opens what `launch.data encode` wrote into `latents` for the buckets that had any clips."""
  directory = inside(latents, split)
  empty = json.loads(open_storage(directory).read(EMPTY) or '[]')
  return {
    name: Records(inside(directory, name), skip_missing=skip_missing)
    for name in buckets
    if name not in empty
  }


def latent_sources(
  data: DataSettings, shapes: Mapping[str, Shape] | Mapping[str, AudioShape], split: str
) -> dict[str, Records]:
  """Opens the latents of the buckets, each where its source in `data` has them."""
  return from_each_source(
    data, shapes, lambda its, mine, _: stored_latents(its.latents, mine, split, its.skip_missing)
  )


def open_clip_index(
  data: DataSettings,
  split: str,
  medium: Medium,
  probe: Any,
  report: Report = None,
  captions: Captions = PLAIN,
) -> tuple[ClipIndex, list[RejectedEntry]]:
  """Opens the clips of a configuration: a folder, a manifest or clip records.

  `probe` maps a file to fields of an `IndexedClip`; records were probed when they were made, and
  have captions.

  Raises:
    ConfigError: there is no path, or files are expected where records are.
    DataError: there is nothing at it.
  """
  path = data.path_of(split)
  if data.kind in _RECORDED:
    return recorded_clips(Records(path, skip_missing=data.skip_missing), data.only), []
  if (pathlib.Path(path) / MANIFEST).is_file():
    raise ConfigError(f'{path!r} holds records; read them with --config.data.kind=records')
  clips, rejected = probe_entries(pathlib.Path(path), medium, probe, report, captions)
  return index_of_clips(clips), rejected


def make_transform(prepares, keep: tuple[str, ...]):
  """Makes the map from a sample to the arrays of a batch, safe to send to worker processes.

  `prepares` are functions sample -> arrays, one a conditioning; the batch keeps the fields `keep`.
  """
  return functools.partial(_transform, tuple(prepares), keep)


def _transform(prepares, keep, sample: Fields) -> dict[str, np.ndarray]:
  arrays = {name: np.asarray(sample[name]) for name in keep}
  for prepare in prepares:
    arrays |= prepare(sample)
  return arrays


class _WithFrameRate(Wrapped):
  """Adds the frame rate to every sample of a synthetic dataset."""

  def __init__(self, source: Source, fps: float):
    super().__init__(source)
    self.fps = fps
    self.said = f'at {fps:g}'

  def change(self, sample: Sample, index: int) -> Sample:
    del index
    return sample | {'fps': self.fps}

  @property
  def every_caption(self) -> Callable[[], Iterator[Sample]]:
    """Which not all synthetic datasets have."""
    known = self.source.every_caption
    return lambda: (sample | {'fps': self.fps} for sample in known())


def _world(
  data: DataSettings, shapes: Mapping[str, Shape], split: str, report: Report
) -> dict[str, Source]:
  del report
  sources = {}
  rate = {'fps': whole(data.fps, 'data.fps')} if source_of(data.kind).by_seconds else {}
  for name, shape in shapes.items():
    source = make_world(data, split, frames=shape.frames, size=shape.size, **rate)
    sources[name] = source if shape.frames == 1 else _WithFrameRate(source, data.fps)
  return sources


def _clips(
  data: DataSettings, shapes: Mapping[str, Shape], split: str, report: Report
) -> dict[str, Source]:
  report = report if split == 'train' else None
  probe = functools.partial(probe_video, shapes=shapes)
  clips, rejected = open_clip_index(data, split, VIDEO, probe, report)
  assigned = sort_out(clips, rejected, shapes, data.path_of(split), report, repeats=data.repeats)
  intervals = data.intervals if split == 'train' else (1,)
  windows = {
    name: VideoClips(clips.take(indices), shapes[name], intervals=intervals)
    for name, indices in assigned.items()
  }
  if not data.in_memory:
    return dict(windows)
  return {name: InMemory(source, data.in_memory) for name, source in windows.items()}


def check_same_shape(arrays: Sequence[Any]) -> None:
  """Raises DataError if arrays of one batch, None where one has ended, differ in shape."""
  shapes = {None if array is None else tuple(array.shape) for array in arrays}
  if len(shapes) > 1:
    raise DataError(
      f'samples of one bucket have the shapes {sorted(shapes, key=str)}; expected equal ones: put '
      'others into another bucket'
    )
