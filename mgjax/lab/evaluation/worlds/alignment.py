"""Measures how well generated videos of a synthetic dataset match their prompts.

What is asked and what is read, the judge of the synthetic dataset says
(`mgjax/lab/worlds/judging.py`).
"""

import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from mgjax.core.errors import ConfigError
from mgjax.core.settings import fields_of
from mgjax.core.typing import UInt8
from mgjax.data.media.viewing import write_clip, write_sheets
from mgjax.data.settings import DataSettings, data_settings
from mgjax.data.sources import make_world
from mgjax.data.synthetic_datasets import judge_of
from mgjax.lab.evaluation.metrics.frechet import frechet_value
from mgjax.lab.evaluation.record.measured import (
  SHOWN,
  Measured,
  Metric,
  mean_metric,
  number_metric,
  share_metric,
  spread,
)
from mgjax.lab.worlds.judging import Asked, DiverseJudge, VideoJudge
from mgjax.sections.video.pipeline import VideoPipeline


def judge_model(
  pipeline: VideoPipeline, *, samples: int = 216, seed: int = 0
) -> tuple[Measured, UInt8[np.ndarray, 'b t h w 3'], list[str]]:
  """Samples held-out captions and judges the videos, group by group.

  The metrics are the shares of factors of captions that videos show ('all' requires all factors in
  one video). Their baselines are real clips, and real clips with shuffled captions. If the judge
  supports it, there are two more. One is the diversity of unspecified factors relative to real
  clips, 0 for copies of a template. The other is the Frechet distance from real clips of the same
  captions, beside that of as many other real clips. Returns the numbers, videos and prompts.
  """
  judge = judge_for(pipeline)
  groups = judge.asks(samples)
  videos = {}
  first = 0
  for group, requests in groups.items():
    prompts = [request.caption for request in requests]
    conditions = pipeline.conditions_of(judge.clips(requests)) if pipeline.reads else {}
    videos[group] = pipeline.generate(prompts, seed=seed, first=first, **conditions)
    first += len(requests)
  all_requests = [request for requests in groups.values() for request in requests]
  all_videos = np.concatenate([*videos.values()])
  return measured(judge, groups, videos), all_videos, [request.caption for request in all_requests]


def judge_for(pipeline: Any, what: str = 'video') -> Any:
  """Makes the judge of the synthetic dataset that a model was trained on; ConfigError if there is
  none."""
  frames, height, width = pipeline.default_shape
  data = data_settings(fields_of(pipeline.config, 'data'))
  return judge_of_data(data, frames, (height, width), what)


def judge_of_data(
  data: DataSettings, frames: int, size: tuple[int, int], what: str = 'video'
) -> Any:
  """Makes the judge of a dataset for clips of `frames` and `size`; ConfigError if none."""
  make = judge_of(data.kind, what)
  return make(make_world(data, 'train', frames=frames, size=size))


def measured(
  judge: VideoJudge, groups: Mapping[str, Sequence[Asked]], videos: Mapping[str, np.ndarray]
) -> Measured:
  """Scores videos with a judge against their requests, group by group."""
  total = sum(map(len, groups.values()))
  first = 0
  metrics = {}
  record = {}
  for group, requests in groups.items():
    ceiling, floor = judge.references(group)
    right = {
      name: values
      for name, values in judge.right(videos[group], requests).items()
      if not np.isnan(values).all()  # a factor that no caption specifies
    }
    prefix = '' if len(groups) == 1 else f'{group}/'
    for name, values in right.items():
      spread_out = np.full(total, np.nan)
      spread_out[first : first + len(requests)] = values
      beside = {'real clips': ceiling.get(name, np.nan), 'shuffled': floor.get(name, np.nan)}
      label = judge.factors.get(name, name) + (f', {group}' if prefix else '')
      is_share = np.isin(values[~np.isnan(values)], (0, 1)).all()
      metrics[f'alignment/{prefix}{name}'] = (share_metric if is_share else mean_metric)(
        spread_out, label, 1, beside=beside, show_extremes=not prefix or name in ('all', 'number')
      )
    scores = {name: float(np.nanmean(values)) for name, values in right.items()}
    record[group] = {'alignment': scores, 'ceiling': dict(ceiling), 'floor': dict(floor)}
    first += len(requests)
  captions = {request.caption for requests in groups.values() for request in requests}
  diversity_record = {}
  diversity_metrics = {}
  if isinstance(judge, DiverseJudge):
    ((group, requests),) = groups.items()
    diversity_metrics, diversity_record = _spread_of(judge, videos[group], requests)
  only = next(iter(record.values())) if len(record) == 1 else {'groups': record}
  counts = {'samples': total, 'captions': len(captions)}
  return Measured(
    metrics | diversity_metrics,
    [request.caption for requests in groups.values() for request in requests],
    record={**only, **diversity_record, **counts},
    notes=[f'{total} videos of {len(captions)} captions'],
  )


def _spread_of(
  judge: DiverseJudge, videos: np.ndarray, requests: Sequence[Asked]
) -> tuple[dict[str, Metric], dict[str, float | None]]:
  """Returns diversity, and the Frechet distances of videos and of other real clips from real ones.

  There is no distance if the data have fewer than twice as many clips of these captions.
  """
  variety = judge.diversity(videos, requests)
  metrics = {'diversity': number_metric(variety, len(videos), 'diversity', 1)}
  record = {'diversity': variety, 'frechet': None, 'real_frechet': None}
  try:
    clips = [clip['video'] for clip in judge.clips([*requests, *requests])]
  except ConfigError:
    return metrics, record
  rows = judge.features(clips)[:, None]
  real = rows[: len(requests)]
  others = rows[len(requests) :]
  distance, usual = (
    frechet_value(features, real) for features in (judge.features(videos)[:, None], others)
  )
  label = 'Frechet distance of what the judge sees'
  beside = {'real clips': usual.value}
  metrics['frechet'] = Metric(distance, label, -1, beside=beside, mean=False)
  return metrics, record | {'frechet': distance.value, 'real_frechet': usual.value}


def write_samples(
  directory: pathlib.Path, videos: np.ndarray, prompts: list[str], fps: float
) -> tuple[list[pathlib.Path], list[pathlib.Path]]:
  """Writes some of the videos to a contact sheet and an animation, and each of them as .mp4."""
  chosen = spread(prompts, SHOWN)
  paths = []
  for number, index in enumerate(chosen):
    paths.append(directory / 'samples' / f'{number:03d}.mp4')
    write_clip(paths[-1], videos[index], fps)
  selected = [videos[index] for index in chosen]
  sheet = directory / 'samples.png'
  return write_sheets(sheet, selected, [prompts[index] for index in chosen], fps), paths
