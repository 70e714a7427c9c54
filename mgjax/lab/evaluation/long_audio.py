"""Compares the methods of generating long soundtracks (Movie Gen §6)."""

import math
import pathlib
import tempfile
from collections.abc import Mapping
from typing import Any

import numpy as np

from mgjax.core.settings import fields_of
from mgjax.data.media.audio import write_wav
from mgjax.data.media.audio_sheet import audio_sheet
from mgjax.data.media.video import write_video
from mgjax.data.settings import audio_shapes, data_settings, longest_audio_bucket
from mgjax.data.sources import make_world
from mgjax.data.synthetic_datasets import RATE
from mgjax.lab.evaluation.audio_alignment import sound_judge
from mgjax.lab.evaluation.metrics.seams import gather_seams
from mgjax.lab.evaluation.record.measured import Measured, number_metric
from mgjax.lab.statistics.values import plain
from mgjax.sections.audio import extend
from mgjax.sections.audio.extend import Extension
from mgjax.sections.audio.pipeline import AudioPipeline

_SEAMS = {  # -> label of the metric, direction that is better
  ('seams', 'ratio'): ('flux at seams over elsewhere', -1),
  ('seams', 'rank'): ('rank of seams', -1),
}
WAYS = tuple(how for how in extend.WAYS if how != 'whole')


def long_clips(pipeline: AudioPipeline, factor: int, count: int) -> list[dict[str, Any]]:
  """Returns clips `factor` times as long as those of training, with audio events throughout."""
  fps = pipeline.config.data.fps
  seconds = factor * pipeline.default_seconds
  shapes = audio_shapes(fields_of(pipeline.config, 'buckets'))
  shape = shapes[longest_audio_bucket(shapes)]
  judge = sound_judge(pipeline)
  data = data_settings(fields_of(pipeline.config, 'data'))
  source = make_world(
    data,
    'train',
    frames=round(seconds * fps),
    size=(shape.height, shape.width),
    fps=fps,
    sound=True,
  )
  return judge.long_clips(source, factor, count)


def compare_ways(
  pipeline: AudioPipeline, *, factor: int = 4, clips: int = 8, seed: int = 0, candidates: int = 1
) -> tuple[Measured, dict[str, np.ndarray]]:
  """Makes soundtracks of clips of a synthetic dataset, `factor` times as long, in every way.

  Of each way it says how the flux where windows end compares with that elsewhere, and what the
  judge hears; of so few clips there are no intervals. Of several candidates of a window the best is
  taken, and autoregression carries the two best histories on. Returns the numbers, and the audio
  (s c) of the first clip: the 'original' and that of each way.
  """
  samples = long_clips(pipeline, factor, clips)
  fps = pipeline.config.data.fps
  judge = sound_judge(pipeline)
  seconds = factor * pipeline.default_seconds
  sounds_by_way = {'original': samples[0]['audio']}
  record = {}
  with tempfile.TemporaryDirectory() as folder:
    paths = [pathlib.Path(folder) / f'{index}.mp4' for index in range(clips)]
    for path, sample in zip(paths, samples, strict=True):
      write_video(path, sample['video'], fps)
    for how in WAYS:
      extension = Extension(how=how)
      sounds = []
      for index, (path, sample) in enumerate(zip(paths, samples, strict=True)):
        parts = pipeline.stream(
          sample['caption'],
          seconds=seconds,
          video=pipeline.video_track(path),
          extension=extension,
          seed=seed + index,
          candidates=candidates,
          beams=min(candidates, 2) if how == 'autoregressive' else 1,
        )
        sounds.append(np.concatenate(list(parts)))
      joints = joints_of(pipeline, seconds, extension)
      seams = gather_seams([(sound, joints) for sound in sounds], pipeline.rate)
      record[how] = {
        'seams': plain(seams),
        'scores': plain(judge.scores(judge.read(sounds, samples))),
      }
      sounds_by_way[how] = sounds[0]
  columns = dict(_SEAMS)
  for name, column in judge.columns.items():
    columns['scores', name] = column.label.removesuffix(', %'), column.better
  metrics = {}
  for how, scores in record.items():
    for (part, name), (label, better) in columns.items():
      number = math.nan if scores[part][name] is None else scores[part][name]
      metrics[f'{how}/{part}/{name}'] = number_metric(number, clips, f'{label}, {how}', better)
  note = f'{clips} clip(s) of {len(samples[0]["audio"]) / RATE:g} s'
  return Measured(metrics, record=record, notes=[note]), sounds_by_way


def write_heard(
  directory: pathlib.Path, sounds: Mapping[str, np.ndarray], rate: int
) -> list[pathlib.Path]:
  """Writes the audio of one clip as .wav files, and a sheet of all of them."""
  paths = [directory / 'long.png', *(directory / f'long_{how}.wav' for how in sounds)]
  audio_sheet(paths[0], list(sounds.values()), list(sounds), rate)
  for path, sound in zip(paths[1:], sounds.values(), strict=True):
    write_wav(path, np.clip(sound, -1, 1), rate)
  return paths


def joints_of(pipeline: AudioPipeline, seconds: float, extension: Extension) -> list[float]:
  """Returns the seconds at which windows (of a block, in multi-diffusion) end, but the last."""
  outer, inner = pipeline.plan(seconds, extension)
  cover = outer if inner is None else inner
  return [(start + cover.size) / pipeline.latent_rate for start in cover.starts[:-1]]
