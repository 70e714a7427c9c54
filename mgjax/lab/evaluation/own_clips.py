"""Measures what a model of your own clips makes of their captions, beside those clips."""

import dataclasses
import pathlib
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from mgjax.core.settings import fields_of
from mgjax.core.typing import UInt8
from mgjax.data.broken_samples import Replacing
from mgjax.data.clips import InMemory, VideoClips, evenly
from mgjax.data.media.viewing import write_clip, write_sheets
from mgjax.data.settings import data_settings, video_shapes
from mgjax.data.shape import longest_bucket
from mgjax.data.sources import make_sources
from mgjax.lab.evaluation.metrics.similarity import decibels, squared_errors
from mgjax.lab.evaluation.record.measured import Measured, mean_metric, share_metric
from mgjax.models.text.prompts import clean_prompt
from mgjax.sections.video.pipeline import VideoPipeline
from mgjax.training.monitoring.progress import track

WINDOWS = 256  # of the clips to search for the nearest one
SAMPLES = 64
SHOWN = 12  # samples on the contact sheet
Window = UInt8[np.ndarray, 't h w 3']
_RECONSTRUCTED = 32  # windows that the autoencoder encodes and decodes


def judge_clips(
  pipeline: VideoPipeline, *, samples: int = SAMPLES, seed: int = 0, clips: str = ''
) -> tuple[Measured, list[Window], list[Window]]:
  """Samples captions of the clips a model was trained on, and finds the clip nearest to each.

  The search reads at most 256 windows, about equally many of each clip, and takes the one with the
  least mean squared difference. The baseline for the share of samples that are nearest to a clip
  with their own caption is a random window. The baseline for the PSNR of sample and window is that
  of windows after the autoencoder. There is at most one sample a caption. `clips` is a folder or
  manifest, by default the clips of the run. Returns the numbers, the samples, and the nearest
  window of each sample. Raises DataError if the clips are missing.
  """
  source = _clips_of(pipeline, clips)
  indices = source.spread(WINDOWS)
  first = {source.caption(index): index for index in reversed(indices)}
  known = sorted(first, key=first.__getitem__)
  sampled = [known[index] for index in evenly(len(known), min(samples, len(known)))]
  replacing = Replacing(source)
  conditions = {}
  if pipeline.reads:
    conditions = pipeline.conditions_of([replacing[first[caption]] for caption in sampled])
  prompts = [clean_prompt(caption) for caption in sampled]
  videos = list(pipeline.stream(prompts, seed=seed, **conditions))
  nearest = [_Nearest() for _ in videos]
  captions = []
  errors = []
  reconstructed = set(evenly(len(indices), _RECONSTRUCTED))
  for number, index in enumerate(track(indices, len(indices), 'window')):
    sample = replacing[index]
    window = sample['video']
    caption = sample['caption']
    captions.append(caption)
    nearest = [
      min(best, _Nearest(float(squared_errors(video, window).mean()), caption, index))
      for best, video in zip(nearest, videos, strict=True)
    ]
    if number in reconstructed:
      errors.append(pipeline.reconstruction_error(window))
  names = [best.caption for best in nearest]
  own = [caption == name for caption, name in zip(sampled, names, strict=True)]
  psnr = decibels(np.array([best.error for best in nearest])).tolist()
  chance = float(np.mean([captions.count(caption) / len(captions) for caption in sampled]))
  again = float(decibels(np.array([np.mean(errors)]))[0])
  chances = {'chance': chance}
  ceiling = {'autoencoder': again}
  metrics = {
    'nearest_is_own': share_metric(own, 'nearest clip is their own', beside=chances),
    'nearest_psnr': mean_metric(psnr, 'against the nearest clip, dB', beside=ceiling),
  }
  record = {'nearest_is_own': np.mean(own), 'nearest_psnr': np.mean(psnr), 'captions': sampled}
  record |= {'nearest': names, 'psnr': psnr, 'chance': chance, 'windows': len(captions)}
  record |= {'clip_captions': len(known), 'reconstruction_psnr': again}
  measured = Measured(
    metrics,
    sampled,
    record=record,
    notes=[f'{len(captions)} windows of clips, {len(known)} captions'],
  )
  return measured, videos, [replacing[best.index]['video'] for best in nearest]


def write_nearest(
  directory: pathlib.Path,
  measured: Measured,
  videos: Sequence[Window],
  windows: Sequence[Window],
  fps: float,
) -> tuple[list[pathlib.Path], list[pathlib.Path]]:
  """Writes some samples as .mp4, and sheets with each sample below its nearest clip."""
  chosen = evenly(len(videos), SHOWN)
  paths = [directory / 'samples' / f'{number:03d}.mp4' for number in range(len(chosen))]
  rows = []
  titles = []
  for path, index in zip(paths, chosen, strict=True):
    write_clip(path, videos[index], fps)
    rows += [windows[index], videos[index]]
    titles += [
      f'nearest clip: {measured.record["nearest"][index]}',
      f'sample: {measured.samples[index]}',
    ]
  return write_sheets(directory / 'samples.png', rows, titles, fps), paths


class _Nearest(NamedTuple):
  error: float = np.inf
  caption: str = ''
  index: int = 0


def _clips_of(pipeline: VideoPipeline, clips: str) -> VideoClips | InMemory:
  """The windows that the model was trained on, as they are and not in encoded form."""
  config = pipeline.config
  name, shape = longest_bucket(video_shapes(fields_of(config, 'buckets'), config.data.fps))
  data = data_settings(fields_of(config, 'data')).without_latents()
  if clips:
    data = dataclasses.replace(data, kind='clips', path=clips, sources={})
    shape = dataclasses.replace(shape, source='')
  source = make_sources(data, {name: shape}, 'train')[name]
  assert isinstance(source, VideoClips | InMemory)
  return source
