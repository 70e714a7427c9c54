"""Configurations to sources of samples."""

import functools
import os
import pathlib
from collections.abc import Mapping
from typing import Any

import numpy as np
from ml_collections import ConfigDict

from mgjax.core.errors import ConfigError
from mgjax.data.clips import Clips, find_clips
from mgjax.data.digits import Digits
from mgjax.data.mixture import Source
from mgjax.data.records import Records

SPLITS = ('train', 'validation')
Fields = Mapping[str, Any] | ConfigDict  # which is a mapping in all but name


def make_source(
  data: Fields,
  name: str,
  shape: Fields,
  split: str,
  report: str | os.PathLike[str] | None = None,
) -> Source:
  """Makes the source of one bucket's samples: {'video' or 'latents', 'caption', 'fps'}.

  Args:
    data: `kind` is 'digits' (with their fields under `digits`) or 'clips' (a folder or manifest at
      `path`); `fps` of videos; `intervals` between frames of training clips, of which one is drawn;
      `latents`, where `launch.encode` put the same data in encoded form, or '' to read it as it is.
    name: of the bucket.
    shape: the bucket's `frames`, `height` and `width`.
    split: 'train' or 'validation'. Clips have no split of their own: `validation_path` names
      others, without it training clips validate.
    report: where rejected clips are listed.

  Raises:
    ConfigError: the kind is unknown.
    DataError: there is no usable data.
  """
  fps = None if shape['frames'] == 1 else data['fps']
  if data.get('latents'):
    return WithFrameRate(Records(pathlib.Path(data['latents']) / split / name), fps)
  makers = {'digits': _digits, 'clips': _clips}
  if data['kind'] not in makers:
    raise ConfigError(f'unknown data kind {data["kind"]!r}; expected one of {", ".join(makers)}')
  return WithFrameRate(makers[data['kind']](data, name, shape, split, report), fps)


def longest_bucket(buckets: Fields) -> tuple[str, Fields]:
  """Returns name and shape of the bucket with the most frames, the first of several."""
  return max(buckets.items(), key=lambda item: item[1]['frames'])


class WithFrameRate:
  """Adds the frame rate of videos to every sample; images have none."""

  def __init__(self, source: Source, fps: float | None):
    self.source, self.fps = source, fps

  def __len__(self) -> int:
    return len(self.source)

  def __getitem__(self, index: int) -> dict[str, Any]:
    return self.source[index] | ({} if self.fps is None else {'fps': self.fps})


def _digits(data, name, shape, split, report) -> Source:
  del name, report
  size = (shape['height'], shape['width'])
  return make_digits(data['digits'], split, frames=shape['frames'], size=size)


def make_digits(fields: Fields, split: str, **more: Any) -> Digits:
  """Makes the small world of a configuration; `more` are fields of `Digits` that come first.

  Validation has other handwriting and, of videos, the combinations that training never shows.
  """
  fields = {key: tuple(v) if isinstance(v, list) else v for key, v in fields.items()} | more
  if split == 'validation':
    captions = 'held_out' if fields['frames'] > 1 else 'all'
    fields |= {'split': 'test', 'captions': captions, 'length': 4096}
  return Digits(**fields)


def _clips(data, name, shape, split, report) -> Source:
  path = data['path']
  if not path:
    raise ConfigError(
      'config.data.path is empty; name a folder of clips with captions, as in '
      '--config.data.path=my_clips/ or --config=...:my_clips/'
    )
  if split == 'validation':
    path = data.get('validation_path') or path
    report = None
  size = (shape['height'], shape['width'])
  shared = {'frames': shape['frames'], 'fps': data['fps'], 'size': size}
  if report is not None:
    report = pathlib.Path(report).with_name(f'rejected_{name}.jsonl')
  intervals = tuple(data.get('intervals') or (1,)) if split == 'train' else (1,)
  return Clips(find_clips(path, **shared, report=report), **shared, intervals=intervals)


def make_transform(prepares, keep: tuple[str, ...]):
  """Makes the map from a sample to the arrays of a batch, safe to send to worker processes.

  Args:
    prepares: functions sample -> arrays, one a conditioning.
    keep: array fields of the sample itself that the batch keeps.
  """
  return functools.partial(_transform, tuple(prepares), keep)


def _transform(prepares, keep, sample: Mapping[str, Any]) -> dict[str, np.ndarray]:
  arrays = {name: np.asarray(sample[name]) for name in keep}
  for prepare in prepares:
    arrays |= prepare(sample)
  return arrays
