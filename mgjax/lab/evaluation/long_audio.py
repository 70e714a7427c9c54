"""Compares the methods of generating long soundtracks (Movie Gen §6)."""

import math
import pathlib
import tempfile
from collections.abc import Mapping

import numpy as np

from mgjax.core.settings import fields_of
from mgjax.core.typing import Sample
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

_SEAMS = {  # label of the metric, which way is better
  ('seams', 'ratio'): ('flux at seams over elsewhere', -1),
  ('seams', 'rank'): ('rank of seams', -1),
}
WAYS = tuple(how for how in extend.WAYS if how != 'whole')


def long_clips(pipeline: AudioPipeline, factor: int, count: int) -> list[Sample]:
  """Returns clips that sound all along and `factor` times as long as those of training."""
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
  """Makes soundtracks of clips of a world, `factor` times as long, in every way.

  Of each way it says how the flux where windows end compares with that elsewhere, and what the
  judge hears; of so few clips there are no intervals. Of several candidates of a window the best is
  taken, and autoregression carries the two best histories on. Returns the numbers, and the sounds
  (s c) of the first clip: the 'original' and that of each way.
  """
  samples = long_clips(pipeline, factor, clips)
  fps = pipeline.config.data.fps
  judge = sound_judge(pipeline)
  seconds = factor * pipeline.default_seconds
  heard = {'original': samples[0]['audio']}
  found = {}
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
      found[how] = {
        'seams': plain(seams),
        'scores': plain(judge.scores(judge.read(sounds, samples))),
      }
      heard[how] = sounds[0]
  columns = dict(_SEAMS)
  for name, column in judge.columns.items():
    columns['scores', name] = column.label.removesuffix(', %'), column.better
  metrics = {}
  for how, told in found.items():
    for (part, name), (label, better) in columns.items():
      number = math.nan if told[part][name] is None else told[part][name]
      metrics[f'{how}/{part}/{name}'] = number_metric(number, clips, f'{label}, {how}', better)
  note = f'{clips} clip(s) of {len(samples[0]["audio"]) / RATE:g} s'
  return Measured(metrics, record=found, notes=[note]), heard


def write_heard(
  directory: pathlib.Path, heard: Mapping[str, np.ndarray], rate: int
) -> list[pathlib.Path]:
  """Writes sounds of one clip as wavs and on one sheet."""
  paths = [directory / 'long.png', *(directory / f'long_{how}.wav' for how in heard)]
  audio_sheet(paths[0], list(heard.values()), list(heard), rate)
  for path, sound in zip(paths[1:], heard.values(), strict=True):
    write_wav(path, np.clip(sound, -1, 1), rate)
  return paths


def joints_of(pipeline: AudioPipeline, seconds: float, extension: Extension) -> list[float]:
  """Returns when windows, or of multi-diffusion a block's windows, end before the whole does."""
  outer, inner = pipeline.plan(seconds, extension)
  cover = outer if inner is None else inner
  return [(start + cover.size) / pipeline.latent_rate for start in cover.starts[:-1]]
