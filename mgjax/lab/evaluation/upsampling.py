"""Measures how well an upsampler gives back what degradation took away, and looks for its seams.

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
from mgjax.lab.evaluation.record.show import Shown
from mgjax.lab.statistics.values import Value, finite_mean, mean_value
from mgjax.sections.upsampler.pipeline import Upsampler, scaled_size
from mgjax.sections.upsampler.section import Pairs, Windows

OURS = 'upsampled'
REGRESSION = 'regression net'
Videos = UInt8[np.ndarray, '_ _ _ _ 3']
INPUTS = ('clean', 'degraded')
JUDGE = 'enlarged'  # in a world's row
SHOWN = 8  # clips in a picture
PICTURED = ('bicubic', REGRESSION, OURS, 'truth')
_SCALE = 4  # of a picture
_PATCH = 2  # latent places a side, whose distribution is compared
_COLUMNS = {'psnr': 'PSNR dB', 'ssim': 'SSIM', 'frechet': 'Frechet', 'flicker': 'flicker'}
_LESS = ('frechet', 'flicker')  # is better
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
) -> tuple[Measured, list[Shown]]:
  """Degrades clips, by default those of validation, enlarges them in every way and compares.

  The seed is of the noise and of what happens to the clips, `baseline` a regression net of the same
  autoencoder, `clips` a folder or manifest. Returns the numbers: input -> kind of clips -> way ->
  score, and the samples: inputs that were enlarged, clean ones first, then degraded ones.
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
    each, errors = _numbers(videos, truth)
    if judge is not None:
      each |= judge.read(videos, indices)
    scores = {}
    for kind, rows in kinds.items():
      means = {name: finite_mean(numbers[rows]) for name, numbers in each.items()}
      scores[kind] = (
        dict.fromkeys(columns, math.nan)
        | means
        | {
          # That of all clips is of their mean error.
          'psnr': float(similarity.decibels(errors[rows].mean()[None])[0]),
          'frechet': frechet_distance(_patches(pipeline, videos[rows]), patches[kind]),
        }
      )
    return _Read(each, scores)

  encoded = [pipeline.codec.encode(jnp.asarray(video)[None]) for video in truth]
  again = [
    np.asarray(pipeline.codec.decode(latents, len(video), size=video.shape[1:3]))[0]
    for latents, video in zip(encoded, truth, strict=True)
  ]
  # The same whatever the input.
  still = {'autoencoder (ceiling)': np.stack(again), 'truth': truth}
  still_read = {way: read(videos) for way, videos in still.items()}
  found: dict[str, dict[str, _Read]] = {}
  shown = []
  source = pairs.degraded(chosen, 2 * seed + 1)
  degraded = np.stack([source.small(index) for index in range(len(chosen))])
  for given in INPUTS:
    small = shrunk(truth, pairs) if given == 'clean' else degraded
    ways = _enlarged(pipeline, baseline, small, size, captions, seed, given == 'clean')
    found[given] = {way: read(videos) for way, videos in ways.items()} | still_read
    for row, caption in enumerate(captions):
      pictured = {'input': _repeated(small[row], size)}
      pictured |= {way: videos[row] for way, videos in (ways | still).items() if way in PICTURED}
      shown.append(Shown(f'{given}, {caption}', pictured))
  where = '' if baseline is None else str(baseline.weights['workdir'])
  return _measured(found, kinds, columns, captions, where), shown


def _measured(
  found: Mapping[str, Mapping[str, '_Read']],
  kinds: Mapping[str, Sequence[int]],
  columns: Mapping[str, str],
  captions: Sequence[str],
  baseline: str,
) -> Measured:
  """The model's scores beside the other ways, of every kind of input and of clips."""
  scores = {
    given: {kind: {way: each.scores[kind] for way, each in ways.items()} for kind in kinds}
    for given, ways in found.items()
  }
  metrics = {}
  for turn, (given, ways) in enumerate(found.items()):
    for kind, rows in kinds.items():
      told = scores[given][kind]
      for name, number in told[OURS].items():
        if math.isnan(number):
          continue
        spread = np.full(len(found) * len(captions), np.nan)
        if name in ways[OURS].each:
          spread[np.array(rows) + turn * len(captions)] = ways[OURS].each[name][list(rows)]
        beside = {way: each[name] for way, each in told.items() if way != OURS}
        label = ', '.join((columns[name], f'{given} input', *({kind} - {'clips'})))
        metrics[f'scores/{given}/{kind}/{OURS}/{name}'] = _metric(
          name, number, spread, len(rows), label, beside
        )
  counts = {kind: len(rows) for kind, rows in kinds.items()}
  about = ['input', *(way for way in PICTURED if way != REGRESSION or baseline)]
  return Measured(
    metrics,
    [f'{given}: {caption}' for given in found for caption in captions],
    about=', '.join(about),
    record={'scores': scores, 'clips': counts, 'baseline': baseline},
  )


def shrunk(videos: Videos, pairs: Pairs) -> Videos:
  """Returns clips at low resolution without other degradation: means over areas."""
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
  """Enlarges clips in every way."""
  ways = {}
  asked = {'video': small, 'size': size, 'keep_colours': keep_colours}
  for kernel in ('bicubic', 'lanczos'):
    ways[kernel] = np.stack([resize(video, size, kernel) for video in small])
  if baseline is not None:
    ways[REGRESSION] = baseline.generate(captions, **asked)
  ways['upsampled, no caption'] = pipeline.generate(seed=seed, **asked)
  ways[OURS] = pipeline.generate(captions, seed=seed, **asked)
  return ways


def _repeated(video: UInt8[np.ndarray, '_ _ _ 3'], size: tuple[int, int]) -> np.ndarray:
  """Returns frames of another size by the nearest pixels."""
  rows, columns = (
    np.arange(wanted) * length // wanted
    for wanted, length in zip(size, video.shape[1:3], strict=True)
  )
  return video[:, rows][:, :, columns]


class _Read(NamedTuple):
  """Scores of one way to enlarge: score -> a number a clip, and kind of clips -> score -> value."""

  each: dict[str, Float[np.ndarray, 'n']]
  scores: dict[str, dict[str, float]]


def _numbers(
  videos: Videos, truth: Videos
) -> tuple[dict[str, Float[np.ndarray, 'n']], Float[np.ndarray, 'n']]:
  """Returns score -> a number a clip, and the squared errors."""
  pairs = list(zip(videos, truth, strict=True))
  errors = np.array([similarity.squared_errors(*pair).mean() for pair in pairs])
  each = {
    'psnr': similarity.decibels(errors),
    'ssim': np.array([similarity.structural_similarity(*pair).mean() for pair in pairs]),
  }
  if truth.shape[1] > 1:
    each['flicker'] = np.array([similarity.flicker(*pair) for pair in pairs])
  return each, errors


def _metric(
  name: str,
  number: float,
  each: Float[np.ndarray, 'n'],
  count: int,
  label: str,
  beside: Mapping[str, float],
) -> Metric:
  """A score with its interval, where it is known what each clip has."""
  better = -1 if name in _LESS else 1
  if np.isin(each[np.isfinite(each)], (0, 1)).all() and name not in _COLUMNS:
    return share_metric(each, label, beside=beside)
  if not np.isfinite(each).any():
    return number_metric(number, count, label, better, beside=beside)
  found = mean_metric(each, label, better, beside=beside)
  if name != 'psnr':
    return found
  # That of all clips is of their mean error, and falls where the error rises.
  error = mean_value(10 ** (-each / 10))
  low, high = (-10 * np.log10(max(end, 1e-12)) for end in (error.high, error.low))
  value = dataclasses.replace(found.value, value=number, low=float(low), high=float(high))
  return dataclasses.replace(found, value=value, mean=False)


def _patches(pipeline: Upsampler, videos: Videos) -> Float[np.ndarray, 'n d']:
  """Returns patches of 2 x 2 latents of all frames, in rows: features for a Frechet distance."""
  rows = []
  for video in videos:
    latents = np.asarray(pipeline.codec.encode(jnp.asarray(video)[None]), np.float32)[0]
    t, h, w, c = latents.shape
    h, w = h - h % _PATCH, w - w % _PATCH
    cut = latents[:, :h, :w].reshape(t, h // _PATCH, _PATCH, w // _PATCH, _PATCH, c)
    rows.append(cut.transpose(0, 1, 3, 2, 4, 5).reshape(-1, _PATCH * _PATCH * c))
  return np.concatenate(rows)


def draw_upsampled(directory: pathlib.Path, shown: Sequence[Shown]) -> pathlib.Path:
  """Draws the middle frame of some clips in every way, beside each other, four times as large."""
  half = len(shown) // len(INPUTS)
  places = evenly(half, SHOWN // len(INPUTS))
  shown = [shown[part * half + place] for part in range(len(INPUTS)) for place in places]
  rows = [np.stack([video[len(video) // 2] for video in each.ways.values()]) for each in shown]
  titles = [f'{each.title}: {", ".join(each.ways)}' for each in shown]
  path = directory / 'upsampled.png'
  contact_sheet(path, rows, titles, columns=len(rows[0]), scale=_SCALE)
  return path


def judge_seams(
  pipeline: Upsampler, *, factor: int = 4, clips: int = 8, seed: int = 0
) -> tuple[Measured, list[tuple[str, Video]]]:
  """Enlarges clips of a synthetic dataset that are `factor` times as long and wide as windows.

  Flicker at the seams of windows is compared with flicker near them. It is the second difference in
  time, and the error after warping by the optical flow of the true clip. The second difference of
  pixels across the borders of tiles is compared in the same way. The true clip gets the same
  measures, because its content counts too. Windows and tiles that share nothing show whether the
  measures see seams at all. Returns the ratios, and the first clip in every way, for a picture.
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
  made = {'truth': truth}
  usual = pipeline.windows
  for way, how in ((OURS, usual), (ALONE, Windows(overlap=0, feather=0))):
    pipeline.windows = how
    made[way] = [
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
  for way, videos in made.items():
    places = Windows(overlap=0, feather=0) if way == ALONE else usual
    ratios[way] = _ratios(videos, motion, *_seams(shape, pipeline, places))
  metrics = {}
  for name, found in ratios[OURS].items():
    value = Value(found.ratio, found.low, found.high, found.seams)
    beside = {way: each[name].ratio for way, each in ratios.items() if way != OURS}
    label = f'{name}, at seams over near them'
    metrics[f'ratios/{OURS}/{name}'] = Metric(value, label, -1, beside=beside, mean=False)
  measured = Measured(
    metrics,
    record={'ratios': ratios, 'shape': shape, 'clips': clips},
    notes=[f'{clips} clip(s) of {shape[0]} frames of {shape[1]} x {shape[2]}'],
  )
  return measured, [(way, videos[0]) for way, videos in made.items()]


def write_seams(directory: pathlib.Path, shown: list[tuple[str, Video]]) -> list[pathlib.Path]:
  """Draws the first clip in every way."""
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
) -> dict[str, stability.SeamRatio]:
  second = [(stability.second_difference(list(video)), frames) for video in videos]
  pairs = zip(videos, motion, strict=True)
  warped = [(stability.warping_error(list(video), each), frames) for video, each in pairs]
  stacked = np.concatenate(videos)
  return {
    MEASURES[0]: stability.at_seams(second, stability.IN_SECOND_DIFFERENCE),
    MEASURES[1]: stability.at_seams(warped, stability.IN_WARPING_ERROR),
    MEASURES[2]: stability.spatial_seams(list(stacked), [], columns),
  }
