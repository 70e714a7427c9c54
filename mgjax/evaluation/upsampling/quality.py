"""Measures how well an upsampler gives back what degradation took away (Movie Gen §3.1.5).

Every input is enlarged in several ways, and each is compared with the clip that it was made from:
bicubic and Lanczos, the image autoencoder's reconstruction of the true clip (what a model of its
latents could reach), a regression net where one is given, and the model with and without a caption.
A perfect sample of what a clip could have been lies 3 dB below the mean of all of these, which the
regression net answers: what PSNR rewards is not what looks real. So the judges of the small world
read digits and textures, and a Frechet distance compares patches of latents.
"""

import dataclasses
import math
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np

from mgjax.core.resize import resize
from mgjax.core.settings import fields_of
from mgjax.core.typing import Float, UInt8
from mgjax.data.settings import data_settings, video_shapes
from mgjax.data.sources import longest_bucket, make_sources
from mgjax.digits.judge import DigitJudge, train_judge
from mgjax.digits.scene import TEXTURES
from mgjax.digits.texture_judge import texture_phase
from mgjax.evaluation.metrics.frechet import frechet_distance
from mgjax.evaluation.metrics.similarity import (
  decibels,
  flicker,
  squared_errors,
  structural_similarity,
)
from mgjax.evaluation.metrics.values import mean_value
from mgjax.evaluation.reconstruction import evenly
from mgjax.evaluation.record.measured import (
  Measured,
  Metric,
  mean_metric,
  number_metric,
  share_metric,
)
from mgjax.media.contact_sheet import contact_sheet
from mgjax.upsampler.pipeline import Upsampler, scaled_size
from mgjax.upsampler.task import Pairs

OURS = 'upsampled'
REGRESSION = 'regression net'
Videos = UInt8[np.ndarray, '_ _ _ _ 3']
INPUTS = ('clean', 'degraded')
SHOWN = 8  # clips in a picture
PICTURED = ('bicubic', REGRESSION, OURS, 'truth')
JUDGED = 1000  # clips that the judge learns from
_SCALE = 4  # of a picture
_PATCH = 2  # latent places a side, whose distribution is compared
_COLUMNS = {
  'psnr': ('PSNR dB', 2),
  'ssim': ('SSIM', 3),
  'frechet': ('Frechet', 3),
  'flicker': ('flicker', 2),
  'digit': ('digit', 3),
  'texture': ('texture', 3),
  'phase': ('phase', 3),
}
_LESS = ('frechet', 'flicker')  # is better
_SHARES = ('digit', 'texture')


@dataclasses.dataclass(frozen=True)
class Upsampled:
  """Scores of every way to enlarge, of every kind of input and of clips.

  Attributes:
    scores: input -> kind of clips -> way -> score -> value; what cannot be measured is NaN.
    clips: how many of each kind.
    baseline: the work directory of the regression net, '' without one.
    each: input -> score -> a number a clip, of the model; NaN of a clip without one.
    kinds: kind of clips -> which ones.
    captions: of the clips.
  """

  scores: Mapping[str, Mapping[str, Mapping[str, Mapping[str, float]]]]
  clips: Mapping[str, int]
  baseline: str
  each: Mapping[str, Mapping[str, Sequence[float]]] = dataclasses.field(default_factory=dict)
  kinds: Mapping[str, Sequence[int]] = dataclasses.field(default_factory=dict)
  captions: Sequence[str] = ()

  def as_dict(self) -> dict[str, Any]:
    """Returns plain JSON values, None for NaN."""
    scores = {
      given: {
        kind: {
          way: {name: None if math.isnan(value) else value for name, value in each.items()}
          for way, each in ways.items()
        }
        for kind, ways in kinds.items()
      }
      for given, kinds in self.scores.items()
    }
    return {'scores': scores, 'clips': dict(self.clips), 'baseline': self.baseline}

  def measured(self) -> Measured:
    """Returns the model's scores beside the other ways, of every kind of input and of clips.

    A sample is an input that was enlarged: clean ones first, then degraded ones.
    """
    metrics = {}
    for place, (given, found) in enumerate(self.each.items()):
      for kind, rows in self.kinds.items():
        ways = self.scores[given][kind]
        for name in _COLUMNS:
          number = ways[OURS][name]
          if math.isnan(number):
            continue
          spread = np.full(len(self.each) * len(self.captions), np.nan)
          if name in found:
            at = np.array(rows) + place * len(self.captions)
            spread[at] = np.asarray(found[name], np.float64)[list(rows)]
          beside = {way: each[name] for way, each in ways.items() if way != OURS}
          label = ', '.join((_COLUMNS[name][0], f'{given} input', *({kind} - {'clips'})))
          metrics[f'scores/{given}/{kind}/{OURS}/{name}'] = _metric(
            name, number, spread, len(rows), label, beside
          )
    samples = [f'{given}: {caption}' for given in self.each for caption in self.captions]
    ways = ['input', *(way for way in PICTURED if way != REGRESSION or self.baseline)]
    return Measured(metrics, samples, about=', '.join(ways))

  def table(self) -> str:
    """Formats the scores, for people."""
    lines = []
    for given, kinds in self.scores.items():
      for kind, ways in kinds.items():
        heads = ''.join(f'{title:>10}' for title, _ in _COLUMNS.values())
        lines.append(f'{f"{given} input, {kind} ({self.clips[kind]})":36}{heads}')
        for way, each in ways.items():
          cells = [
            '-' if math.isnan(each[name]) else f'{each[name]:.{places}f}'
            for name, (_, places) in _COLUMNS.items()
          ]
          lines.append(f'  {way:34}' + ''.join(f'{cell:>10}' for cell in cells))
        lines.append('')
    return '\n'.join(lines).rstrip()


@dataclasses.dataclass(frozen=True)
class Shown:
  """A clip in every way, for a picture."""

  title: str
  ways: Mapping[str, UInt8[np.ndarray, 't h w 3']]

  @property
  def beside(self) -> UInt8[np.ndarray, 't h v 3']:
    """All ways side by side."""
    return np.concatenate(list(self.ways.values()), axis=2)


def judge_upsampler(
  pipeline: Upsampler,
  *,
  samples: int = 64,
  seed: int = 0,
  baseline: Upsampler | None = None,
  clips: str = '',
) -> tuple[Upsampled, list[Shown]]:
  """Degrades validation clips, enlarges them in every way and compares.

  Args:
    pipeline: the model.
    samples: clips.
    seed: of the noise, and of what happens to the clips.
    baseline: of a regression net of the same autoencoder.
    clips: a folder or manifest of other clips; by default those of the run's validation.

  Raises:
    ConfigError: the configuration is of other data.
    DataError: there are no clips.
  """
  config = pipeline.config
  pairs = Pairs.of(fields_of(config, 'pairs'))
  data = data_settings(fields_of(config, 'data')).without_latents()
  if clips:
    data = dataclasses.replace(data, kind='clips', path=clips, validation_path='')
  name, shape = longest_bucket(video_shapes(fields_of(config, 'buckets'), config.data.fps))
  source = make_sources(data, {name: shape}, 'validation')[name]
  chosen = [source[index] for index in evenly(len(source), samples)]
  truth = np.stack([sample['video'] for sample in chosen])
  captions = [sample['caption'] for sample in chosen]
  kinds = _kinds(chosen)
  judge = None
  if data.kind == 'digits':
    world = {**data.digits, 'frames': shape.frames, 'size': shape.size}
    judge = train_judge(side=min(shape.size), clips=JUDGED, **world)
  # The same whatever the input.
  still = {
    'autoencoder (ceiling)': np.stack([_through(pipeline, v) for v in truth]),
    'truth': truth,
  }
  patches = {kind: _patches(pipeline, truth[rows]) for kind, rows in kinds.items()}
  scores: dict[str, Any] = {}
  each: dict[str, Any] = {}
  shown = []
  for given in INPUTS:
    small = shrunk(truth, pairs) if given == 'clean' else _degraded(chosen, pairs, seed)
    ways = _enlarged(pipeline, baseline, small, shape.size, captions, seed) | still
    scores[given] = {
      kind: {
        way: _scores(
          pipeline, judge, videos[rows], truth[rows], patches[kind], [chosen[row] for row in rows]
        )
        for way, videos in ways.items()
      }
      for kind, rows in kinds.items()
    }
    each[given] = _each(judge, ways[OURS], truth, chosen)
    for row in range(len(truth)):
      tall, wide = truth.shape[2:4]
      seen = _repeated(small[row], (tall, wide))
      shown.append(
        Shown(
          f'{given}, {captions[row]}',
          {'input': seen} | {way: ways[way][row] for way in ways if way in PICTURED},
        )
      )
  counts = {kind: len(rows) for kind, rows in kinds.items()}
  where = '' if baseline is None else str(baseline.weights['workdir'])
  return Upsampled(scores, counts, where, each, kinds, captions), shown


def shrunk(videos: Videos, pairs: Pairs) -> Videos:
  """Returns clips at low resolution without other degradation: means over areas."""
  size = scaled_size(videos.shape[2:4], 1 / pairs.scale)
  return np.stack([resize(video, size, 'area') for video in videos])


def _degraded(samples: Sequence[dict[str, Any]], pairs: Pairs, seed: int) -> Videos:
  """Returns clips degraded as in validation."""
  source = pairs.degraded(samples, 2 * seed + 1)
  return np.stack([source.small(index) for index in range(len(samples))])


def _enlarged(
  pipeline: Upsampler,
  baseline: Upsampler | None,
  small: Videos,
  size: tuple[int, int],
  captions: Sequence[str],
  seed: int,
) -> dict[str, Videos]:
  """Enlarges clips in every way."""
  ways = {
    kernel: np.stack([resize(video, size, kernel) for video in small])
    for kernel in ('bicubic', 'lanczos')
  }
  if baseline is not None:
    ways[REGRESSION] = baseline.generate(captions, video=small, size=size)
  ways['upsampled, no caption'] = pipeline.generate(video=small, size=size, seed=seed)
  ways[OURS] = pipeline.generate(captions, video=small, size=size, seed=seed)
  return ways


def _repeated(video: UInt8[np.ndarray, '_ _ _ 3'], size: tuple[int, int]) -> np.ndarray:
  """Returns frames of another size by the nearest pixels."""
  rows, columns = (
    np.arange(wanted) * length // wanted
    for wanted, length in zip(size, video.shape[1:3], strict=True)
  )
  return video[:, rows][:, :, columns]


def _through(pipeline: Upsampler, video: UInt8[np.ndarray, 't h w 3']) -> np.ndarray:
  latents = pipeline.codec.encode(jnp.asarray(video)[None])
  return np.asarray(pipeline.codec.decode(latents, len(video), size=video.shape[1:3]))[0]


def _kinds(samples: Sequence[dict[str, Any]]) -> dict[str, list[int]]:
  """Returns which clips are plain and which have a texture; of other data all are one kind."""
  kinds: dict[str, list[int]] = {}
  for row, sample in enumerate(samples):
    textured = TEXTURES[sample['texture']] if 'texture' in sample else None
    kind = 'clips' if textured is None else 'textured' if textured else 'plain'
    kinds.setdefault(kind, []).append(row)
  return dict(sorted(kinds.items()))


def _scores(
  pipeline: Upsampler,
  judge: DigitJudge | None,
  videos: Videos,
  truth: Videos,
  patches: Float[np.ndarray, 'm d'],
  samples: Sequence[dict[str, Any]],
) -> dict[str, float]:
  """Scores one way to enlarge; `patches` are those of the true clips."""
  pairs = list(zip(videos, truth, strict=True))
  errors = np.array([squared_errors(*pair).mean() for pair in pairs])
  moving = truth.shape[1] > 1
  found = dict.fromkeys(_COLUMNS, float('nan')) | {
    'psnr': float(decibels(errors.mean()[None])[0]),
    'ssim': float(np.mean([structural_similarity(*pair).mean() for pair in pairs])),
    'frechet': frechet_distance(_patches(pipeline, videos), patches),
  }
  if moving:
    found['flicker'] = float(np.mean([flicker(*pair) for pair in pairs]))
  if judge is None:
    return found
  read = [judge.read(video) for video in videos]
  asked = [TEXTURES[sample['texture']] for sample in samples]
  right = [mine.digit == sample['digit'] for mine, sample in zip(read, samples, strict=True)]
  found['digit'] = float(np.mean(right))
  if any(asked):
    same = [mine.texture == texture for mine, texture in zip(read, asked, strict=True)]
    found['texture'] = float(np.mean(same))
    phases = [texture_phase(video) for video in videos] if moving else []
    phases = [phase for phase in phases if not math.isnan(phase)]
    found['phase'] = float(np.mean(phases)) if phases else float('nan')
  return found


def _each(
  judge: DigitJudge | None, videos: Videos, truth: Videos, samples: Sequence[dict[str, Any]]
) -> dict[str, list[float]]:
  """Scores of `_scores` clip by clip, those that a clip has."""
  pairs = list(zip(videos, truth, strict=True))
  errors = np.array([squared_errors(*pair).mean() for pair in pairs])
  found = {
    'psnr': decibels(errors).tolist(),
    'ssim': [float(structural_similarity(*pair).mean()) for pair in pairs],
  }
  if truth.shape[1] > 1:
    found['flicker'] = [float(flicker(*pair)) for pair in pairs]
  if judge is None:
    return found
  read = [judge.read(video) for video in videos]
  found['digit'] = [
    float(mine.digit == sample['digit']) for mine, sample in zip(read, samples, strict=True)
  ]
  asked = [TEXTURES[sample['texture']] for sample in samples]
  found['texture'] = [
    float(mine.texture == texture) if texture else math.nan
    for mine, texture in zip(read, asked, strict=True)
  ]
  return found


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
  if name in _SHARES:
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


def write_shown(directory: pathlib.Path, shown: Sequence[Shown]) -> list[pathlib.Path]:
  """Draws the middle frame of every clip in every way, beside each other, four times as large."""
  half = len(shown) // len(INPUTS)
  places = evenly(half, SHOWN // len(INPUTS))
  shown = [shown[part * half + place] for part in range(len(INPUTS)) for place in places]
  directory.mkdir(parents=True, exist_ok=True)
  rows = [np.stack([video[len(video) // 2] for video in each.ways.values()]) for each in shown]
  titles = [f'{each.title}: {", ".join(each.ways)}' for each in shown]
  path = directory / 'upsampled.png'
  contact_sheet(path, rows, titles, columns=len(rows[0]), scale=_SCALE)
  return [path]
