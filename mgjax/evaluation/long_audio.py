"""Compares the methods of generating long soundtracks (Movie Gen §6)."""

import dataclasses
import pathlib
import tempfile
from collections.abc import Sequence
from typing import Any

import numpy as np

from mgjax.audio import extend
from mgjax.audio.extend import Extension
from mgjax.audio.pipeline import AudioPipeline
from mgjax.audio.task import longest_audio_bucket
from mgjax.core.settings import fields_of
from mgjax.core.typing import Float
from mgjax.data.settings import audio_shapes
from mgjax.digits.clips import Digits
from mgjax.digits.sound_judge import SoundScores, judge_clips
from mgjax.digits.sounds import RATE
from mgjax.evaluation.audio_alignment import check_digits
from mgjax.evaluation.metrics.seams import Seams, gather_seams
from mgjax.evaluation.record.measured import Measured, number_metric
from mgjax.media.audio import write_wav
from mgjax.media.audio_sheet import audio_sheet
from mgjax.media.video import write_video

_LABELS = {
  ('seams', 'ratio'): ('flux at seams over elsewhere', -1),
  ('seams', 'rank'): ('rank of seams', -1),
  ('scores', 'onset_error'): ('onset error, ms', -1),
  ('scores', 'missed'): ('missed', -1),
  ('scores', 'extra'): ('extra', -1),
  ('scores', 'tone'): ('right tone', 1),
}
WAYS = tuple(how for how in extend.WAYS if how != 'whole')


@dataclasses.dataclass(frozen=True)
class Way:
  """Results of one method.

  Attributes:
    seams: of the sounds, where windows end.
    scores: of the sounds against the pictures.
    sounds: one a clip.
  """

  seams: Seams
  scores: SoundScores
  sounds: Sequence[Float[np.ndarray, 's c']]


@dataclasses.dataclass(frozen=True)
class LongAudio:
  """Results by method, and the clips that they were made for."""

  ways: dict[str, Way]
  clips: Sequence[dict[str, Any]]

  def as_dict(self) -> dict[str, Any]:
    """Returns plain JSON values."""
    return {
      how: {'seams': dataclasses.asdict(way.seams), 'scores': way.scores.as_dict()}
      for how, way in self.ways.items()
    }

  def measured(self) -> Measured:
    """Returns the numbers of each way; of so few clips there are no intervals."""
    metrics = {}
    for how, way in self.ways.items():
      told = {'seams': dataclasses.asdict(way.seams), 'scores': dataclasses.asdict(way.scores)}
      for (part, name), (label, better) in _LABELS.items():
        number = float(told[part][name])
        metrics[f'{how}/{part}/{name}'] = number_metric(
          number, len(way.sounds), f'{label}, {how}', better
        )
    return Measured(metrics)

  def table(self) -> str:
    """Formats the ways for people."""
    labels = ('flux at seams', 'rank', 'onset error', 'missed', 'extra', 'right tone')
    lines = [f'{"":16}' + ''.join(f'{label:>15}' for label in labels)]
    for how, way in self.ways.items():
      seams, scores = way.seams, way.scores
      shares = (scores.missed, scores.extra, scores.tone)
      cells = [f'{seams.ratio:.2f} x', f'{seams.rank:.2f}', f'{scores.onset_error:.1f} ms']
      cells += [f'{share:.1%}' for share in shares]
      lines.append(f'{how:16}' + ''.join(f'{cell:>15}' for cell in cells))
    seconds = len(self.clips[0]['audio']) / RATE
    lines.append(f'{len(self.clips)} clip(s) of {seconds:g} s; flux: at seams over elsewhere')
    return '\n'.join(lines)

  def write(self, directory: pathlib.Path, rate: int) -> list[pathlib.Path]:
    """Writes the first clip's sounds, the true one with them, as wavs and on one sheet."""
    heard = {'original': self.clips[0]['audio']}
    heard |= {how: way.sounds[0] for how, way in self.ways.items()}
    paths = [directory / 'long.png', *(directory / f'long_{how}.wav' for how in heard)]
    audio_sheet(paths[0], list(heard.values()), list(heard), rate)
    for path, sound in zip(paths[1:], heard.values(), strict=True):
      write_wav(path, np.clip(sound, -1, 1), rate)
    return paths


def long_clips(pipeline: AudioPipeline, factor: int, count: int) -> list[dict[str, Any]]:
  """Returns clips of bouncing digits, of unseen handwriting, `factor` times as long."""
  config = check_digits(pipeline)
  fps, seconds = config.data.fps, factor * pipeline.default_seconds
  shapes = audio_shapes(fields_of(config, 'buckets'))
  shape = shapes[longest_audio_bucket(shapes)]
  digits = Digits(
    split='test', captions='all', motions=('bounce',), colours=tuple(config.data.digits.colours),
    frames=round(seconds * fps), size=(shape.height, shape.width), fps=fps, laps=factor,
    sound=True, length=count,
  )  # fmt: skip
  return [digits[index] for index in range(count)]


def compare_ways(
  pipeline: AudioPipeline, *, factor: int = 4, clips: int = 8, seed: int = 0
) -> LongAudio:
  """Makes soundtracks of long clips of the small world in every way.

  Args:
    pipeline: trained on the small world.
    factor: length, in lengths of training.
    clips: how many.
    seed: of the noise, the same for every way.

  Raises:
    ConfigError: the model was trained on something else.
  """
  samples, fps = long_clips(pipeline, factor, clips), pipeline.config.data.fps
  seconds = factor * pipeline.default_seconds
  found = {}
  with tempfile.TemporaryDirectory() as folder:
    paths = [pathlib.Path(folder) / f'{index}.mp4' for index in range(clips)]
    for path, sample in zip(paths, samples, strict=True):
      write_video(path, sample['video'], fps)
    for how in WAYS:
      extension, sounds = Extension(how=how), []
      for index, (path, sample) in enumerate(zip(paths, samples, strict=True)):
        parts = pipeline.stream(
          sample['caption'], seconds=seconds, video=pipeline.video_track(path), extension=extension,
          seed=seed + index, candidates=1,
        )  # fmt: skip
        sounds.append(np.concatenate(list(parts)))
      joints = joints_of(pipeline, seconds, extension)
      seams = gather_seams([(sound, joints) for sound in sounds], pipeline.rate)
      found[how] = Way(seams, judge_clips(sounds, samples), sounds)
  return LongAudio(found, samples)


def joints_of(pipeline: AudioPipeline, seconds: float, extension: Extension) -> list[float]:
  """Returns when windows, or of multi-diffusion a block's windows, end before the whole does."""
  outer, inner = pipeline.plan(seconds, extension)
  cover = outer if inner is None else inner
  return [(start + cover.size) / pipeline.latent_rate for start in cover.starts[:-1]]
