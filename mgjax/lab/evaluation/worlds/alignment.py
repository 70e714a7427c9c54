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
  """Samples captions that training never showed and judges the videos, group by group.

  The numbers are the shares of what captions say that videos show; 'all' wants all of it in one
  video. Beside them are those of real clips, and of real clips under other captions. If the judge
  has it, the diversity of what captions leave open is relative to real clips, 0 for copies of a
  template. The Frechet distance is from real clips of the same captions, beside that of as many
  other real clips. Returns the numbers, videos and prompts.
  """
  judge = judge_for(pipeline)
  groups = judge.asks(samples)
  videos = {}
  first = 0
  for group, asked in groups.items():
    prompts = [each.caption for each in asked]
    conditions = pipeline.conditions_of(judge.clips(asked)) if pipeline.reads else {}
    videos[group] = pipeline.generate(prompts, seed=seed, first=first, **conditions)
    first += len(asked)
  every = [each for asked in groups.values() for each in asked]
  shown = np.concatenate([*videos.values()])
  return measured(judge, groups, videos), shown, [each.caption for each in every]


def judge_for(pipeline: Any, what: str = 'video') -> Any:
  """Makes the judge of the synthetic dataset that a model was trained on; ConfigError if there is
  none."""
  frames, height, width = pipeline.default_shape
  data = data_settings(fields_of(pipeline.config, 'data'))
  return judge_of_data(data, frames, (height, width), what)


def judge_of_data(
  data: DataSettings, frames: int, size: tuple[int, int], what: str = 'video'
) -> Any:
  """Makes the judge of clips of data, of some frames and size; ConfigError if there is none."""
  make = judge_of(data.kind, what)
  return make(make_world(data, 'train', frames=frames, size=size))


def measured(
  judge: VideoJudge, groups: Mapping[str, Sequence[Asked]], videos: Mapping[str, np.ndarray]
) -> Measured:
  """Puts together what a judge reads from videos of what was asked for, group by group."""
  total = sum(map(len, groups.values()))
  first = 0
  metrics = {}
  record = {}
  for group, asked in groups.items():
    ceiling, floor = judge.references(group)
    right = {
      name: each
      for name, each in judge.right(videos[group], asked).items()
      if not np.isnan(each).all()  # a factor of which no caption says anything
    }
    place = '' if len(groups) == 1 else f'{group}/'
    for name, each in right.items():
      spread_out = np.full(total, np.nan)
      spread_out[first : first + len(asked)] = each
      beside = {'real clips': ceiling.get(name, np.nan), 'shuffled': floor.get(name, np.nan)}
      label = judge.factors.get(name, name) + (f', {group}' if place else '')
      whole = np.isin(each[~np.isnan(each)], (0, 1)).all()
      metrics[f'alignment/{place}{name}'] = (share_metric if whole else mean_metric)(
        spread_out, label, 1, beside=beside, shown=not place or name in ('all', 'number')
      )
    scores = {name: float(np.nanmean(each)) for name, each in right.items()}
    record[group] = {'alignment': scores, 'ceiling': dict(ceiling), 'floor': dict(floor)}
    first += len(asked)
  captions = {each.caption for asked in groups.values() for each in asked}
  more = {}
  found = {}
  if isinstance(judge, DiverseJudge):
    ((group, asked),) = groups.items()
    found, more = _spread_of(judge, videos[group], asked)
  only = next(iter(record.values())) if len(record) == 1 else {'groups': record}
  counts = {'samples': total, 'captions': len(captions)}
  return Measured(
    metrics | found,
    [each.caption for asked in groups.values() for each in asked],
    record={**only, **more, **counts},
    notes=[f'{total} videos of {len(captions)} captions'],
  )


def _spread_of(
  judge: DiverseJudge, videos: np.ndarray, asked: Sequence[Asked]
) -> tuple[dict[str, Metric], dict[str, float | None]]:
  """Diversity, and the Frechet distances of videos and of other real clips from real ones.

  No distance where the data have not twice as many clips of these captions.
  """
  variety = judge.diversity(videos, asked)
  metrics = {'diversity': number_metric(variety, len(videos), 'diversity', 1)}
  record = {'diversity': variety, 'frechet': None, 'real_frechet': None}
  try:
    clips = [clip['video'] for clip in judge.clips([*asked, *asked])]
  except ConfigError:
    return metrics, record
  rows = judge.features(clips)[:, None]
  real = rows[: len(asked)]
  others = rows[len(asked) :]
  found, usual = (frechet_value(each, real) for each in (judge.features(videos)[:, None], others))
  label = 'Frechet distance of what the judge sees'
  beside = {'real clips': usual.value}
  metrics['frechet'] = Metric(found, label, -1, beside=beside, mean=False)
  return metrics, record | {'frechet': found.value, 'real_frechet': usual.value}


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
