"""Measures the reconstruction quality of a video autoencoder (Movie Gen §3.1.1)."""

import dataclasses
import math
import pathlib
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence

import jax.numpy as jnp
import numpy as np

from mgjax.core.errors import ConfigError, DataError, NonFiniteError
from mgjax.core.typing import Float, Sample, UInt8
from mgjax.data.buckets import Shape
from mgjax.data.clips import evenly
from mgjax.data.media.contact_sheet import contact_sheet
from mgjax.data.media.viewing import viewing_scale, write_clip
from mgjax.data.settings import DataSettings
from mgjax.data.sources import make_sources
from mgjax.lab.evaluation.metrics import similarity
from mgjax.lab.evaluation.metrics.frechet import few_rows, frechet_distance
from mgjax.lab.evaluation.record.measured import (
  Furthest,
  Measured,
  Metric,
  mean_metric,
  numbers_of,
  standard_means,
)
from mgjax.lab.statistics.values import Value
from mgjax.models.tae.latents import LatentCodec
from mgjax.models.tae.outlier import distances
from mgjax.models.tae.perceptual import COMMAND
from mgjax.training.monitoring.progress import track

SHOWN = 4  # clips to draw
DOT = 3.0  # a latent norm above this, r in the Movie Gen paper, is a dot
LABELS = {
  'psnr': 'PSNR of a frame, dB',
  'psnr_of_clip': 'PSNR of a clip, dB',
  'ssim': 'SSIM',
  'lpips': 'LPIPS (VGG16)',
  'flicker': 'flicker, grey levels',
  'highest_norm': 'highest latent norm',
  'dots': f'share of latent norms above {DOT:g}',
}
BETTER = {name: 1 if name in ('psnr', 'psnr_of_clip', 'ssim') else -1 for name in LABELS}
_CONTRAST = 4  # of the drawn differences


@dataclasses.dataclass(frozen=True)
class VideoPair:
  """A clip, its reconstruction, its `latent_norms`, and the frames and pixels a latent (t h w)."""

  original: UInt8[np.ndarray, 't h w 3']
  reconstruction: UInt8[np.ndarray, 't h w 3']
  norms: Float[np.ndarray, 'u i j']
  compression: tuple[int, int, int]


def evaluate_reconstruction(
  codec: LatentCodec,
  videos: Iterable[np.ndarray],
  *,
  perceive: similarity.Perceive | None = None,
  keep: Collection[int] = range(SHOWN),
  names: Sequence[str] = (),
) -> tuple[Measured, dict[int, VideoPair]]:
  """Encodes and decodes clips, uint8 (t h w 3) of any sizes, and compares them with the originals.

  One frame is an image, without flicker. LPIPS and the Frechet distance need `perceive`, from
  `make_perceive`. Returns the numbers, named as in `LABELS`, and index -> pair for the clips in
  `keep` and the best and the worst by each number. Raises DataError if there is no clip, or one is
  not of bytes, too small or empty, NonFiniteError if a latent is not finite.
  """
  clips = []
  shapes = {}
  perceptions = []
  pairs = Furthest(BETTER, keep)
  for index, video in enumerate(videos):
    pair = reconstruct(codec, video, f'clip {index}')
    clips.append(_numbers(pair))
    shapes[pair.original.shape[:3]] = pair.norms[0].size
    if perceive is not None:
      perceptions.append(perceive(pair.original, pair.reconstruction))
      clips[-1]['lpips'] = float(perceptions[-1].distances.mean())
    pairs.add(pair, clips)
  if not clips:
    raise DataError('there is no clip to judge; give one or more')
  notes = []
  frechet = None
  if perceive is None:
    notes.append(
      'no LPIPS and no Frechet distance: they need weights, --perceptual=lpips.safetensors; where '
      f'the lpips package is installed, {COMMAND} makes them'
    )
  if places := [places for places in shapes.values() if places <= DOT**2 + 1]:
    notes.append(
      f'no latent norm can be above {DOT:g} in frames of {min(places)} latent places: the highest '
      f'there can be is {np.sqrt(min(places) - 1):.1f}; take larger clips to look for dots'
    )
  if perceptions:
    x = np.concatenate([perception.originals for perception in perceptions])
    y = np.concatenate([perception.reconstructions for perception in perceptions])
    note = 'no Frechet distance: it needs two frames or more'
    if len(x) > 1:
      frechet = (frechet_distance(x, y), *x.shape)
      note = few_rows(*x.shape)
    notes += [note] if note else []
  pairs.let_go(clips)
  return _measured(clips, list(shapes), frechet, notes, names), pairs.kept


def _measured(
  clips: Sequence[Mapping[str, float]],
  shapes: Sequence[tuple[int, ...]],
  frechet: tuple[float, int, int] | None,
  notes: Sequence[str],
  names: Sequence[str],
) -> Measured:
  scores = standard_means(clips, list(LABELS))
  metrics = {
    f'scores/{name}': mean_metric(numbers_of(clips, name), LABELS[name], BETTER[name])
    for name in scores
  }
  distances = None
  if frechet is not None:
    distance, count, dimensions = frechet
    title = f'Frechet ({similarity.FEATURES})'
    warning = few_rows(count, dimensions)
    value = Value(distance, math.nan, math.nan, count, references=count, warning=warning)
    metrics['frechet'] = Metric(value, title, -1, mean=False)
    distances = {'features': similarity.FEATURES, 'distance': distance}
    distances |= {'rows': count, 'dimensions': dimensions}
  of = ', '.join(f'{t} frame(s) of {h} x {w}' for t, h, w in shapes)
  return Measured(
    metrics,
    names or [f'clip {number}' for number in range(len(clips))],
    about=f'original, reconstruction, difference x {_CONTRAST}',
    record={
      'scores': scores,
      'frechet': distances,
      'shapes': shapes,
      'notes': notes,
      'clips': clips,
    },
    notes=[f'{len(clips)} clip(s): {of}', *notes],
  )


def reconstruct(codec: LatentCodec, video: np.ndarray, name: str = 'the clip') -> VideoPair:
  """Encodes and decodes one clip; raises as `evaluate_reconstruction`, with `name` in the error."""
  if video.dtype != np.uint8 or video.ndim != 4 or video.shape[-1] != 3 or not video.size:
    raise DataError(
      f'{name} is {video.dtype} {video.shape}, expected uint8 (frames, height, width, 3); scale to '
      '0..255 and round, and give a single image a leading axis of one frame'
    )
  latents = codec.encode(jnp.asarray(video[None]))
  raw = np.asarray(codec.statistics.plain(latents))
  if not np.isfinite(raw).all():
    raise NonFiniteError(f'the latents of {name} are not finite; was the training stable?')
  again = np.asarray(codec.decode(latents, len(video), size=video.shape[1:3])[0])
  return VideoPair(video, again, latent_norms(raw)[0], codec.model.compression)


def latent_norms(latents: Float[np.ndarray, 'b t h w c']) -> Float[np.ndarray, 'b t h w']:
  """Returns ||X_ij - Mean(X)|| / ||Std(X)|| at every position of every latent frame X.

  Mean and Std are over the places of the frame, channel by channel, of latents as the encoder gives
  them, not normalised. Above r the outlier penalty is active, and what is bright there shows as a
  spot in the pixels (Movie Gen §3.1.1, Figure 5). The mean square over a frame is 1, and no place
  of n is above sqrt(n - 1). A frame that is constant but for rounding has norms near 0.
  """
  distance, spread = (np.asarray(x) for x in distances(jnp.asarray(latents)))
  rounding = 1e-5 * np.abs(latents).max() + np.finfo(np.float32).tiny
  return distance / np.maximum(spread, rounding)


def sample_clips(
  data: DataSettings,
  longest: Shape,
  samples: int,
  *,
  clips: str = '',
  frames: int | None = None,
  size: tuple[int, int] | None = None,
) -> tuple[Iterator[UInt8[np.ndarray, 't h w 3']], Sample]:
  """Chooses clips for the autoencoder of a run, evenly spread over its validation data or `clips`.

  `frames` and `size` are by default those of `longest`, the run's longest bucket. Returns a lazy
  iterator over the clips, and a description for a record. Raises ConfigError for an invalid size,
  DataError if there is no usable clip.
  """
  height, width = size or longest.size
  if min(height, width) < 1:
    raise ConfigError(f'clips of {height} x {width} pixels: take a height and width of 1 or more')
  shape = {'frames': frames or longest.frames, 'height': height, 'width': width}
  data = data.of(longest.source).without_latents()
  if clips:
    data = dataclasses.replace(data, kind='clips', path=clips, validation_path='')
  shapes = {'clips': Shape(**shape, fps=(data.fps, data.fps))}
  source = make_sources(data, shapes, 'validation')['clips']
  chosen = evenly(len(source), samples)
  described = {'clips': clips or 'validation data of the run', **shape, 'chosen': chosen}
  return (source[index]['video'] for index in track(chosen, len(chosen), 'clip')), described


def write_pictures(
  directory: pathlib.Path, pairs: Sequence[VideoPair], fps: float
) -> list[pathlib.Path]:
  """Writes original | reconstruction | difference x 4 of each pair, and a contact sheet.

  The sheet has a row more a clip: its latent norms, from black over red and yellow to white.
  """
  rows = []
  titles = []
  paths = []
  for earlier in (directory / 'side_by_side').glob('[0-9][0-9][0-9].*'):
    earlier.unlink()  # an earlier evaluation may have written more clips
  for index, pair in enumerate(pairs):
    panels = (pair.original, pair.reconstruction, _difference(pair))
    panel = beside(pair)
    path = directory / 'side_by_side' / f'{index:03d}.{"mp4" if len(panel) > 1 else "png"}'
    write_clip(path, panel, fps, viewing_scale(*pair.original.shape[1:3]))
    paths.append(path)
    rows += [*panels, _norm_map(pair)]
    norms = f'latent norms up to {pair.norms.max():.1f}; above {DOT:g}, orange to white, is a dot'
    titles += [f'original {index}', 'reconstruction', f'difference x {_CONTRAST}', norms]
  sheet = directory / 'reconstruction.png'
  contact_sheet(sheet, rows, titles)
  return [sheet, *paths]


def beside(pair: VideoPair) -> UInt8[np.ndarray, 't h v 3']:
  """Returns original | reconstruction | difference x 4."""
  return np.concatenate([pair.original, pair.reconstruction, _difference(pair)], axis=2)


def _numbers(pair: VideoPair) -> dict[str, float]:
  errors = similarity.squared_errors(pair.original, pair.reconstruction)
  numbers = {
    'psnr': similarity.decibels(errors).mean(),
    'psnr_of_clip': similarity.decibels(errors.mean(keepdims=True))[0],
    'ssim': similarity.structural_similarity(pair.original, pair.reconstruction).mean(),
    'highest_norm': pair.norms.max(),
    'dots': np.mean(pair.norms > DOT),
  }
  if len(pair.original) > 1:
    numbers['flicker'] = similarity.flicker(pair.original, pair.reconstruction)
  return {name: float(number) for name, number in numbers.items()}


def _difference(pair: VideoPair) -> UInt8[np.ndarray, 't h w 3']:
  error = np.abs(pair.reconstruction.astype(np.int16) - pair.original)
  return np.minimum(_CONTRAST * error, 255).astype(np.uint8)


def _norm_map(pair: VideoPair) -> UInt8[np.ndarray, 't h w 3']:
  norms = pair.norms
  for axis, (step, length) in enumerate(zip(pair.compression, pair.original.shape, strict=False)):
    norms = norms.repeat(step, axis).take(range(length), axis)
  heat = norms[..., None] / 2 - np.arange(3, dtype=np.float32)
  return np.rint(255 * np.clip(heat, 0, 1)).astype(np.uint8)
