"""Measures how well an upsampler restores degraded clips, and looks for its seams.

Every input is enlarged in several ways, and each is compared with the clip that it was made from.
The ways are bicubic and Lanczos, a regression net if one is given, and the model with and without
a caption. The image autoencoder's reconstruction of the true clip is what a model of its latents
could reach.
A perfect sample of what a clip could have been lies 3 dB below the mean of all of these, which the
regression net answers: what PSNR rewards is not what looks real. So the judge of a synthetic
dataset reads what clips show, and a Frechet distance compares patches of latents (Movie Gen
§3.1.5).
"""

import dataclasses
import math
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np

from mgjax.core.errors import ConfigError
from mgjax.core.resize import resize
from mgjax.core.settings import fields_of
from mgjax.core.typing import Float, UInt8
from mgjax.data.clips import evenly
from mgjax.data.media.contact_sheet import contact_sheet
from mgjax.data.media.optical_flow import flows
from mgjax.data.settings import data_settings, video_shapes
from mgjax.data.shape import longest_bucket
from mgjax.data.sources import make_sources, make_world
from mgjax.data.synthetic_datasets import WORLDS, judge_of, judged
from mgjax.flow.windows import Cover, windows
from mgjax.lab.evaluation.metrics import similarity, stability
from mgjax.lab.evaluation.metrics.frechet import frechet_distance
from mgjax.lab.evaluation.record.measured import (
  Measured,
  Metric,
  mean_metric,
  number_metric,
  share_metric,
)
from mgjax.lab.evaluation.record.show import SampleViews
from mgjax.lab.statistics.values import Value, finite_mean, mean_value
from mgjax.sections.upsampler.pipeline import Upsampler, scaled_size
from mgjax.sections.upsampler.section import Pairs, Windows

OURS = 'upsampled'
REGRESSION = 'regression net'
Videos = UInt8[np.ndarray, '_ _ _ _ 3']
INPUTS = ('clean', 'degraded')
JUDGE = 'enlarged'  # in a world's row
SHOWN = 8  # clips in the picture
PICTURED = ('bicubic', REGRESSION, OURS, 'truth')
_SCALE = 4  # of a picture
_PATCH = 2  # latents along each side of a patch for the Frechet distance
_COLUMNS = {'psnr': 'PSNR dB', 'ssim': 'SSIM', 'frechet': 'Frechet', 'flicker': 'flicker'}
_LESS = ('frechet', 'flicker')  # metrics where less is better
Video = UInt8[np.ndarray, '_ _ _ 3']
MEASURES = ('second difference', 'warping error', 'across tiles')
ALONE = 'windows that share nothing'


def judge_upsampler(
  pipeline: Upsampler,
  *,
  samples: int = 64,
  seed: int = 0,
  baseline: Upsampler | None = None,
  clips: str = '',
) -> tuple[Measured, list[SampleViews]]:
  """Degrades clips, by default those of validation, upsamples them by every method and compares.

  `seed` is for the noise and the degradations. `baseline` is a regression net of the same
  autoencoder, `clips` a folder or manifest. Returns the numbers: input -> kind of clips -> method
  -> score, and the samples: the upsampled inputs, clean ones first, then degraded ones.
  """
  config = pipeline.config
  pairs = Pairs.of(fields_of(config, 'pairs'))
  data = data_settings(fields_of(config, 'data')).without_latents()
  if clips:
    data = dataclasses.replace(data, kind='clips', path=clips, validation_path='')
  name, shape = longest_bucket(video_shapes(fields_of(config, 'buckets'), config.data.fps))
  judge = None
  if data.kind in judged(JUDGE):
    world = make_world(data, 'validation', frames=shape.frames, size=shape.size)
    judge = judge_of(data.kind, JUDGE)(world)
  source = judge.source if judge else make_sources(data, {name: shape}, 'validation')[name]
  indices = evenly(len(source), samples)
  chosen = [{'fps': data.fps} | source[index] for index in indices]
  truth = np.stack([sample['video'] for sample in chosen])
  size = truth.shape[2:4]
  captions = [sample['caption'] for sample in chosen]
  kinds: dict[str, list[int]] = {}
  for row, kind in enumerate(judge.kinds(indices) if judge else ['clips'] * len(indices)):
    kinds.setdefault(kind, []).append(row)
  kinds = dict(sorted(kinds.items()))
  columns = _COLUMNS | (dict(judge.columns) if judge else {})
  patches = {kind: _patches(pipeline, truth[rows]) for kind, rows in kinds.items()}

  def read(videos: Videos) -> _Read:
    per_clip, errors = _numbers(videos, truth)
    if judge is not None:
      per_clip |= judge.read(videos, indices)
    scores = {}
    for kind, rows in kinds.items():
      means = {name: finite_mean(numbers[rows]) for name, numbers in per_clip.items()}
      scores[kind] = (
        dict.fromkeys(columns, math.nan)
        | means
        | {
          # The PSNR of all clips is that of their mean error.
          'psnr': float(similarity.decibels(errors[rows].mean()[None])[0]),
          'frechet': frechet_distance(_patches(pipeline, videos[rows]), patches[kind]),
        }
      )
    return _Read(per_clip, scores)

  encoded = [pipeline.codec.encode(jnp.asarray(video)[None]) for video in truth]
  again = [
    np.asarray(pipeline.codec.decode(latents, len(video), size=video.shape[1:3]))[0]
    for latents, video in zip(encoded, truth, strict=True)
  ]
  # These do not depend on the input.
  still = {'autoencoder (ceiling)': np.stack(again), 'truth': truth}
  still_read = {way: read(videos) for way, videos in still.items()}
  results: dict[str, dict[str, _Read]] = {}
  views = []
  source = pairs.degraded(chosen, 2 * seed + 1)
  degraded = np.stack([source.small(index) for index in range(len(chosen))])
  for input_kind in INPUTS:
    small = shrunk(truth, pairs) if input_kind == 'clean' else degraded
    ways = _enlarged(pipeline, baseline, small, size, captions, seed, input_kind == 'clean')
    results[input_kind] = {way: read(videos) for way, videos in ways.items()} | still_read
    for row, caption in enumerate(captions):
      pictured = {'input': _repeated(small[row], size)}
      pictured |= {way: videos[row] for way, videos in (ways | still).items() if way in PICTURED}
      views.append(SampleViews(f'{input_kind}, {caption}', pictured))
  where = '' if baseline is None else str(baseline.weights['workdir'])
  return _measured(results, kinds, columns, captions, where), views


def _measured(
  results: Mapping[str, Mapping[str, '_Read']],
  kinds: Mapping[str, Sequence[int]],
  columns: Mapping[str, str],
  captions: Sequence[str],
  baseline: str,
) -> Measured:
  """Returns the model's scores beside the baselines, for every kind of input and of clips."""
  scores = {
    input_kind: {kind: {way: result.scores[kind] for way, result in ways.items()} for kind in kinds}
    for input_kind, ways in results.items()
  }
  metrics = {}
  for turn, (input_kind, ways) in enumerate(results.items()):
    for kind, rows in kinds.items():
      by_way = scores[input_kind][kind]
      for name, number in by_way[OURS].items():
        if math.isnan(number):
          continue
        spread = np.full(len(results) * len(captions), np.nan)
        if name in ways[OURS].per_clip:
          spread[np.array(rows) + turn * len(captions)] = ways[OURS].per_clip[name][list(rows)]
        beside = {way: scores_of_way[name] for way, scores_of_way in by_way.items() if way != OURS}
        label = ', '.join((columns[name], f'{input_kind} input', *({kind} - {'clips'})))
        metrics[f'scores/{input_kind}/{kind}/{OURS}/{name}'] = _metric(
          name, number, spread, len(rows), label, beside
        )
  counts = {kind: len(rows) for kind, rows in kinds.items()}
  about = ['input', *(way for way in PICTURED if way != REGRESSION or baseline)]
  return Measured(
    metrics,
    [f'{input_kind}: {caption}' for input_kind in results for caption in captions],
    about=', '.join(about),
    record={'scores': scores, 'clips': counts, 'baseline': baseline},
  )


def shrunk(videos: Videos, pairs: Pairs) -> Videos:
  """Returns clips at low resolution without other degradation: means over pixel areas."""
  size = scaled_size(videos.shape[2:4], 1 / pairs.scale)
  return np.stack([resize(video, size, 'area') for video in videos])


def _enlarged(
  pipeline: Upsampler,
  baseline: Upsampler | None,
  small: Videos,
  size: tuple[int, int],
  captions: Sequence[str],
  seed: int,
  keep_colours: bool,
) -> dict[str, Videos]:
  """Upsamples clips by every method."""
  ways = {}
  options = {'video': small, 'size': size, 'keep_colours': keep_colours}
  for kernel in ('bicubic', 'lanczos'):
    ways[kernel] = np.stack([resize(video, size, kernel) for video in small])
  if baseline is not None:
    ways[REGRESSION] = baseline.generate(captions, **options)
  ways['upsampled, no caption'] = pipeline.generate(seed=seed, **options)
  ways[OURS] = pipeline.generate(captions, seed=seed, **options)
  return ways


def _repeated(video: UInt8[np.ndarray, '_ _ _ 3'], size: tuple[int, int]) -> np.ndarray:
  """Resizes frames by nearest neighbour."""
  rows, columns = (
    np.arange(target) * length // target
    for target, length in zip(size, video.shape[1:3], strict=True)
  )
  return video[:, rows][:, :, columns]


class _Read(NamedTuple):
  """Scores of one method: score -> a number a clip, and kind of clips -> score -> value."""

  per_clip: dict[str, Float[np.ndarray, 'n']]
  scores: dict[str, dict[str, float]]


def _numbers(
  videos: Videos, truth: Videos
) -> tuple[dict[str, Float[np.ndarray, 'n']], Float[np.ndarray, 'n']]:
  """Returns score -> a number a clip, and the mean squared errors of clips."""
  pairs = list(zip(videos, truth, strict=True))
  errors = np.array([similarity.squared_errors(*pair).mean() for pair in pairs])
  scores = {
    'psnr': similarity.decibels(errors),
    'ssim': np.array([similarity.structural_similarity(*pair).mean() for pair in pairs]),
  }
  if truth.shape[1] > 1:
    scores['flicker'] = np.array([similarity.flicker(*pair) for pair in pairs])
  return scores, errors


def _metric(
  name: str,
  number: float,
  per_clip: Float[np.ndarray, 'n'],
  count: int,
  label: str,
  beside: Mapping[str, float],
) -> Metric:
  """Returns a score, with an interval if there are numbers of single clips."""
  better = -1 if name in _LESS else 1
  if np.isin(per_clip[np.isfinite(per_clip)], (0, 1)).all() and name not in _COLUMNS:
    return share_metric(per_clip, label, beside=beside)
  if not np.isfinite(per_clip).any():
    return number_metric(number, count, label, better, beside=beside)
  metric = mean_metric(per_clip, label, better, beside=beside)
  if name != 'psnr':
    return metric
  # The PSNR of all clips is that of their mean error. Its ends swap, because PSNR falls with it.
  error = mean_value(10 ** (-per_clip / 10))
  low, high = (-10 * np.log10(max(end, 1e-12)) for end in (error.high, error.low))
  value = dataclasses.replace(metric.value, value=number, low=float(low), high=float(high))
  return dataclasses.replace(metric, value=value, mean=False)


def _patches(pipeline: Upsampler, videos: Videos) -> Float[np.ndarray, 'n d']:
  """Returns patches of 2 x 2 latents of all frames as rows: features for a Frechet distance."""
  rows = []
  for video in videos:
    latents = np.asarray(pipeline.codec.encode(jnp.asarray(video)[None]), np.float32)[0]
    t, h, w, c = latents.shape
    h, w = h - h % _PATCH, w - w % _PATCH
    cut = latents[:, :h, :w].reshape(t, h // _PATCH, _PATCH, w // _PATCH, _PATCH, c)
    rows.append(cut.transpose(0, 1, 3, 2, 4, 5).reshape(-1, _PATCH * _PATCH * c))
  return np.concatenate(rows)


def draw_upsampled(directory: pathlib.Path, views: Sequence[SampleViews]) -> pathlib.Path:
  """Draws the middle frame of some clips by every method side by side, at four times the size."""
  half = len(views) // len(INPUTS)
  places = evenly(half, SHOWN // len(INPUTS))
  views = [views[part * half + index] for part in range(len(INPUTS)) for index in places]
  rows = [np.stack([video[len(video) // 2] for video in view.ways.values()]) for view in views]
  titles = [f'{view.title}: {", ".join(view.ways)}' for view in views]
  path = directory / 'upsampled.png'
  contact_sheet(path, rows, titles, columns=len(rows[0]), scale=_SCALE)
  return path


def judge_seams(
  pipeline: Upsampler, *, factor: int = 4, clips: int = 8, seed: int = 0
) -> tuple[Measured, list[tuple[str, Video]]]:
  """Upsamples clips of a synthetic dataset that are `factor` times as long and wide as windows.

  It compares flicker (the second difference in time, and the error after warping by the optical
  flow of the true clip) at the seams of windows with that near them. In the same way it compares
  the second difference of pixels across the borders of tiles. One baseline is the true clip,
  because its content also affects the measures. The other has windows and tiles without overlap,
  and shows whether the measures detect seams at all. Returns the ratios, and the first clip by
  every method, for a picture.
  """
  data = data_settings(fields_of(pipeline.config, 'data')).without_latents()
  if data.kind not in WORLDS:
    known = ' or '.join(WORLDS)
    raise ConfigError(f'seams are looked for on clips of {known}; these data are {data.kind!r}')
  frames, height, width = pipeline.window
  shape = (factor * frames, height, factor * width)
  source = make_world(data, 'validation', frames=shape[0], size=shape[1:])
  samples = [source[index] for index in range(clips)]
  pairs = Pairs.of(fields_of(pipeline.config, 'pairs'))
  small = pairs.degraded(samples, 2 * seed + 1)
  inputs = [small.small(index) for index in range(clips)]
  truth = [sample['video'] for sample in samples]
  motion = [list(flows(list(video))) for video in truth]
  videos_by_way = {'truth': truth}
  usual = pipeline.windows
  for way, how in ((OURS, usual), (ALONE, Windows(overlap=0, feather=0))):
    pipeline.windows = how
    videos_by_way[way] = [
      np.stack(
        list(
          pipeline.stream(
            iter(video),
            size=scaled_size(video.shape[1:3], pairs.scale),
            prompt=sample['caption'],
            seed=seed,
            index=index,
            keep_colours=False,
          )
        )
      )
      for index, (video, sample) in enumerate(zip(inputs, samples, strict=True))
    ]
  pipeline.windows = usual
  ratios = {}
  for way, videos in videos_by_way.items():
    layout = Windows(overlap=0, feather=0) if way == ALONE else usual
    ratios[way] = _ratios(videos, motion, *_seams(shape, pipeline, layout))
  metrics = {}
  for name, seam in ratios[OURS].items():
    value = Value(seam.ratio, seam.low, seam.high, seam.seams)
    beside = {way: seams[name].ratio for way, seams in ratios.items() if way != OURS}
    label = f'{name}, at seams over near them'
    metrics[f'ratios/{OURS}/{name}'] = Metric(value, label, -1, beside=beside, mean=False)
  measured = Measured(
    metrics,
    record={'ratios': ratios, 'shape': shape, 'clips': clips},
    notes=[f'{clips} clip(s) of {shape[0]} frames of {shape[1]} x {shape[2]}'],
  )
  return measured, [(way, videos[0]) for way, videos in videos_by_way.items()]


def write_seams(directory: pathlib.Path, videos: list[tuple[str, Video]]) -> list[pathlib.Path]:
  """Draws the first clip by every method."""
  path = directory / 'seams.png'
  contact_sheet(path, [video for _, video in videos], [way for way, _ in videos], columns=4)
  return [path]


def _seams(
  shape: tuple[int, int, int], pipeline: Upsampler, how: Windows
) -> tuple[list[int], list[int]]:
  """Returns the frames and the columns where windows and tiles begin or end, inside the clip."""
  frames, _, width = pipeline.window
  times = windows(shape[0], frames, how.overlap)
  columns = windows(shape[2], width, how.feather)
  return _ends(times), _ends(columns)


def _ends(cover: Cover) -> list[int]:
  starts = set(cover.starts) | {start + cover.size for start in cover.starts}
  return sorted(starts - {0, cover.length})


def _ratios(
  videos: list[Video], motion: list[Any], frames: list[int], columns: list[int]
) -> dict[str, stability.SeamRatio]:
  second = [(stability.second_difference(list(video)), frames) for video in videos]
  pairs = zip(videos, motion, strict=True)
  warped = [
    (stability.warping_error(list(video), clip_motion), frames) for video, clip_motion in pairs
  ]
  stacked = np.concatenate(videos)
  return {
    MEASURES[0]: stability.at_seams(second, stability.IN_SECOND_DIFFERENCE),
    MEASURES[1]: stability.at_seams(warped, stability.IN_WARPING_ERROR),
    MEASURES[2]: stability.spatial_seams(list(stacked), [], columns),
  }
