"""Looks for seams where windows and tiles of an upsampler meet (Movie Gen §3.1.5).

Clips are longer than a window and wider than a tile. Flicker (the second difference in time, and
the error after warping by the optical flow of the true clip) at the seams of windows is compared
with that near them, and the second difference of pixels across the borders of tiles likewise;
beside the same of the true clip, since what a clip shows counts too, and with windows and tiles
that share nothing, which says whether the measure sees seams at all.
"""

import pathlib
from typing import Any

import numpy as np

from mgjax.core.errors import ConfigError
from mgjax.core.settings import fields_of
from mgjax.core.typing import UInt8
from mgjax.data.settings import data_settings
from mgjax.data.sources import make_digits
from mgjax.evaluation.metrics.stability import (
  IN_SECOND_DIFFERENCE,
  IN_WARPING_ERROR,
  SeamRatio,
  at_seams,
  second_difference,
  spatial_seams,
  warping_error,
)
from mgjax.evaluation.metrics.values import Value
from mgjax.evaluation.record.measured import Grid, Measured, Metric
from mgjax.flow.windows import Cover, windows
from mgjax.media.contact_sheet import contact_sheet
from mgjax.media.optical_flow import flows
from mgjax.upsampler.pipeline import Upsampler, scaled_size
from mgjax.upsampler.task import Pairs, Windows

Video = UInt8[np.ndarray, '_ _ _ 3']
MEASURES = ('second difference', 'warping error', 'across tiles')
OURS = 'upsampled'
ALONE = 'windows that share nothing'


def judge_seams(
  pipeline: Upsampler, *, factor: int = 4, clips: int = 8, seed: int = 0
) -> tuple[Measured, list[tuple[str, Video]]]:
  """Enlarges clips of the small world that are longer and wider than the model's windows.

  Args:
    pipeline: of an upsampler that was trained on moving digits.
    factor: how many times as long and as wide.
    clips: how many.
    seed: of the noise.

  Returns:
    The ratios of each measure at seams to near them, and the first clip in every way, for a
    picture.

  Raises:
    ConfigError: the model was trained on something else.
  """
  data = data_settings(fields_of(pipeline.config, 'data')).without_latents()
  if data.kind != 'digits':
    raise ConfigError(f'seams are looked for on moving digits; this model is of {data.kind!r} data')
  frames, height, width = pipeline.window
  shape = (factor * frames, height, factor * width)
  source = make_digits(data, 'validation', frames=shape[0], size=shape[1:])
  samples = [source[index] for index in range(clips)]
  pairs = Pairs.of(fields_of(pipeline.config, 'pairs'))
  small = pairs.degraded(samples, 2 * seed + 1)
  inputs = [small.small(index) for index in range(clips)]
  truth = [sample['video'] for sample in samples]
  motion = [list(flows(list(video))) for video in truth]
  made = {'truth': truth}
  usual = pipeline.windows
  for way, how in ((OURS, usual), (ALONE, Windows(overlap=0, feather=0))):
    pipeline.windows = how
    made[way] = [
      np.stack(list(pipeline.stream(
        iter(video), size=scaled_size(video.shape[1:3], pairs.scale), prompt=sample['caption'],
        seed=seed, index=index,
      )))
      for index, (video, sample) in enumerate(zip(inputs, samples, strict=True))
    ]  # fmt: skip
  pipeline.windows = usual
  ratios = {}
  for way, videos in made.items():
    places = Windows(overlap=0, feather=0) if way == ALONE else usual
    ratios[way] = _ratios(videos, motion, *_seams(shape, pipeline, places))
  metrics = {}
  for name, found in ratios[OURS].items():
    value = Value(found.ratio, found.low, found.high, found.seams)
    beside = {way: each[name].ratio for way, each in ratios.items() if way != OURS}
    label = f'{name}, at seams over near them'
    metrics[f'ratios/{OURS}/{name}'] = Metric(value, label, -1, beside=beside, mean=False)
  rows = {
    way: [f'{each.ratio:.3f} [{each.low:.3f}, {each.high:.3f}]' for each in found.values()]
    for way, found in ratios.items()
  }
  measured = Measured(
    metrics,
    record={'ratios': ratios, 'shape': shape, 'clips': clips},
    table=[
      Grid(MEASURES, rows, title='at seams over near them'),
      f'{clips} clip(s) of {shape[0]} frames of {shape[1]} x {shape[2]}',
    ],
  )
  return measured, [(way, videos[0]) for way, videos in made.items()]


def write_seams(directory: pathlib.Path, shown: list[tuple[str, Video]]) -> list[pathlib.Path]:
  """Draws the first clip in every way."""
  directory.mkdir(parents=True, exist_ok=True)
  path = directory / 'seams.png'
  contact_sheet(path, [video for _, video in shown], [way for way, _ in shown], columns=4)
  return [path]


def _seams(
  shape: tuple[int, int, int], pipeline: Upsampler, how: Windows
) -> tuple[list[int], list[int]]:
  """Returns the first frames of windows and columns of tiles, and those behind their last ones."""
  frames, _, width = pipeline.window
  times = windows(shape[0], frames, how.overlap)
  columns = windows(shape[2], width, how.feather)
  return _ends(times), _ends(columns)


def _ends(cover: Cover) -> list[int]:
  starts = set(cover.starts) | {start + cover.size for start in cover.starts}
  return sorted(starts - {0, cover.length})


def _ratios(
  videos: list[Video], motion: list[Any], frames: list[int], columns: list[int]
) -> dict[str, SeamRatio]:
  second = [(second_difference(list(video)), frames) for video in videos]
  warped = [
    (warping_error(list(video), each), frames) for video, each in zip(videos, motion, strict=True)
  ]
  stacked = np.concatenate(videos)
  return {
    MEASURES[0]: at_seams(second, IN_SECOND_DIFFERENCE),
    MEASURES[1]: at_seams(warped, IN_WARPING_ERROR),
    MEASURES[2]: spatial_seams(list(stacked), [], columns),
  }
