"""Measures how well generated digit videos match their prompts."""

import collections
import functools
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from mgjax.core.errors import ConfigError
from mgjax.core.settings import fields_of
from mgjax.core.typing import UInt8
from mgjax.data.settings import data_settings
from mgjax.data.sources import make_world
from mgjax.evaluation.metrics.sets import frechet_value
from mgjax.evaluation.metrics.values import Value
from mgjax.evaluation.record.measured import (
  SHOWN,
  Grid,
  Measured,
  Metric,
  number_metric,
  share_metric,
  spread,
)
from mgjax.media.viewing import write_clip, write_sheets
from mgjax.video.pipeline import VideoPipeline
from mgjax.worlds.digits.clips import Digits, all_captions, is_held_out
from mgjax.worlds.digits.digit_features import DigitFeatures, fit_features
from mgjax.worlds.digits.judge import DigitJudge, diversity, judge_ceiling, judge_floor, train_judge

LOOKS = ('frames', 'size', 'colours', 'motions', 'background', 'jitter', 'digit_size', 'laps')
ATTRIBUTES = ('digit', 'colour', 'direction', 'all')


def judge_model(
  pipeline: VideoPipeline, *, samples: int = 216, seed: int = 0
) -> tuple[Measured, UInt8[np.ndarray, 'b t h w 3'], list[str]]:
  """Samples every held-out caption equally often, at least once, and judges the videos.

  What a model reads beside text comes from clips of held-out handwriting with these captions.
  Beside the shares of videos in which the judge reads what the prompt says ('all' wants all three
  in one video) stand those of real clips by handwriting that the judge never saw, and of real clips
  under shuffled captions; the diversity of the digits relative to real ones, 0 for copies of a
  template; and the Frechet distance from real clips of the same captions, by handwriting that the
  model never saw, beside that of as many other real clips. Returns the numbers, videos and prompts.
  """
  world = world_of(pipeline, 'digits')
  captions, unseen, labels = held_out_labels(world, samples)
  prompts = [label[3] for label in labels]
  conditions = {}
  if pipeline.reads:
    data = data_settings(fields_of(pipeline.config, 'data'))
    size = {'frames': world['frames'], 'size': world['size']}
    clips = clips_of(make_world(data, 'validation', **size), labels)
    conditions = pipeline.conditions_of(clips)
  videos = pipeline.generate(prompts, seed=seed, **conditions)
  judge, ceiling, floor = _judge_of(tuple(world.items()))
  right = judge.right(videos, labels)
  scores = {name: float(each.mean()) for name, each in right.items()}
  variety = diversity(judge, videos, labels)
  metrics = {}
  for name, each in right.items():
    beside = {'real clips': ceiling[name], 'shuffled': floor[name]}
    metrics[f'alignment/{name}'] = share_metric(each, name, beside=beside)
  metrics['diversity'] = number_metric(variety, len(videos), 'diversity of digits', 1)
  note = f'{len(videos)} videos of {len(unseen)} captions; diversity {variety:.2f}'
  distances = _distances(pipeline, videos, labels, world)
  if distances is not None:
    frechet, real = distances
    label, beside = 'Frechet distance of what the judge sees', {'real clips': real.value}
    metrics['frechet'] = Metric(frechet, label, -1, beside=beside, mean=False)
    note += f'; Frechet distance {frechet.value:.2f} (real clips {real.value:.2f})'
  titles = ('held-out captions', 'real clips (ceiling)', 'shuffled (floor)')
  rows = zip(titles, (scores, ceiling, floor), strict=True)
  rows = {title: [found[name] for name in ATTRIBUTES] for title, found in rows}
  record = {
    'alignment': scores,
    'ceiling': ceiling,
    'floor': floor,
    'diversity': variety,
    'samples': len(videos),
    'captions': len(unseen),
    'held_out_share': len(unseen) / len(captions),
    'frechet': distances and distances[0].value,
    'real_frechet': distances and distances[1].value,
  }
  found = Measured(metrics, prompts, record=record, table=[Grid(ATTRIBUTES, rows), note])
  return found, videos, prompts


@functools.lru_cache(maxsize=2)  # several ways to sample one model are judged alike
def _judge_of(
  world: tuple[tuple[str, Any], ...],
) -> tuple[DigitJudge, dict[str, float], dict[str, float]]:
  """Returns the judge of a synthetic world, with its ceiling and floor."""
  fields = dict(world)
  judge = train_judge(**fields)
  return judge, judge_ceiling(judge, **fields), judge_floor(judge, **fields)


def _distances(
  pipeline: VideoPipeline,
  videos: Sequence[np.ndarray] | np.ndarray,
  labels: Sequence[tuple],
  world: Mapping[str, Any],
) -> tuple[Value, Value] | None:
  """Returns the Frechet distances of videos and of other real clips from real clips of the same
  labels.

  None where validation data have not twice as many clips of these labels.
  """
  data = data_settings(fields_of(pipeline.config, 'data'))
  source = make_world(data, 'validation', frames=world['frames'], size=world['size'])
  try:
    features, real, others = _real_rows(source, tuple(labels), tuple(world.items()))
  except ConfigError:
    return None
  return frechet_value(features.rows(videos)[:, None], real), frechet_value(others, real)


@functools.lru_cache(maxsize=2)
def _real_rows(
  source: Digits, labels: tuple[tuple, ...], world: tuple[tuple[str, Any], ...]
) -> tuple[DigitFeatures, np.ndarray, np.ndarray]:
  """Returns what makes feature rows of clips, and those of two real clips of each label."""
  clips = [clip['video'] for clip in clips_of(source, [*labels, *labels])]
  features = fit_features(**dict(world))
  rows = features.rows(clips)[:, None]
  return features, rows[: len(labels)], rows[len(labels) :]


def held_out_labels(
  world: Mapping[str, Any], samples: int
) -> tuple[list[tuple], list[tuple], list[tuple]]:
  """Returns all captions, those not in training, and one of these for every sample or more."""
  captions = all_captions(world['colours'], world['motions'])
  unseen = [caption for caption in captions if is_held_out(*caption[:3])]
  labels = [unseen[index % len(unseen)] for index in range(max(samples, len(unseen)))]
  return captions, unseen, labels


def clips_of(source: Digits, labels: Sequence[tuple]) -> list[dict[str, Any]]:
  """Returns a clip of each label (digit, colour, motion, ...), see `indices_of`."""
  return [source[index] for index in indices_of(source, labels)]


def indices_of(source: Digits, labels: Sequence[tuple]) -> list[int]:
  """Returns indices of a clip of each label, none twice; ConfigError if there are too few."""
  wanted = collections.defaultdict(list)
  for place, label in enumerate(labels):
    wanted[tuple(label[:3])].append(place)
  found: dict[int, int] = {}
  for index in range(len(source)):
    if len(found) == len(labels):
      break
    scene = source.scene(index)
    if places := wanted[(int(scene.number), scene.colour, scene.motion)]:
      found[places.pop()] = index
  if len(found) < len(labels):
    raise ConfigError(f'{len(labels)} clips are asked for, the data have {len(found)} of them')
  return [found[place] for place in range(len(labels))]


def world_of(pipeline: VideoPipeline, kind: str, looks: Sequence[str] = LOOKS) -> dict[str, Any]:
  """Returns the `looks` of training clips by name; ConfigError for another kind of data."""
  data = data_settings(fields_of(pipeline.config, 'data'))
  if data.kind != kind:
    raise ConfigError(
      f'the judge reads moving {kind}; this model was trained on {data.kind!r} data'
    )
  frames, height, width = pipeline.default_shape
  world = make_world(data, 'train', frames=frames, size=(height, width))
  return {name: getattr(world, name) for name in looks}


def write_shown(
  directory: pathlib.Path, videos: np.ndarray, prompts: list[str], fps: float
) -> tuple[list[pathlib.Path], list[pathlib.Path]]:
  """Writes some of the videos on a contact sheet and in an animation, and each as mp4."""
  chosen = spread(prompts, SHOWN)
  paths = []
  for place, index in enumerate(chosen):
    paths.append(directory / 'samples' / f'{place:03d}.mp4')
    write_clip(paths[-1], videos[index], fps)
  shown = [videos[index] for index in chosen]
  sheet = directory / 'samples.png'
  return write_sheets(sheet, shown, [prompts[index] for index in chosen], fps), paths
