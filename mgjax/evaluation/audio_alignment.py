"""Measures how well generated audio matches digit videos in time and tone (Movie Gen §6)."""

import dataclasses
import math
import pathlib
from collections.abc import Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from mgjax.audio.pipeline import AudioPipeline
from mgjax.audio.task import longest_audio_bucket
from mgjax.core.errors import ConfigError
from mgjax.core.settings import fields_of
from mgjax.core.typing import Float, UInt8
from mgjax.data.audio_sources import make_audio_sources
from mgjax.data.settings import audio_shapes, data_settings
from mgjax.digits.sound_judge import SoundScores, judge_clips, sound_ceiling, sound_floor
from mgjax.evaluation.audio_reconstruction import CODEC, AudioPair, write_audio
from mgjax.evaluation.reconstruction import evenly
from mgjax.evaluation.scorers import CommandScorer
from mgjax.media.audio import write_soundtrack
from mgjax.media.viewing import write_clip
from mgjax.text.prompts import clean_prompt

MODEL = 'model'
SHOWN = 4  # clips that are written
_COLUMNS = {
  'onset_error': ('onset error, ms', 1),
  'missed': ('missed, %', 100),
  'extra': ('extra, %', 100),
  'tone': ('right tone, %', 100),
  'silence': ('silence kept, %', 100),
}
_ROWS = 8  # sounds that the codec gets at a time


@dataclasses.dataclass(frozen=True)
class AudioScores:
  """Scores of generated and true audio by the judge of the digits world; see `SoundScores`.

  Attributes:
    scores: of the model's sounds.
    codec: of the true sounds, encoded and decoded: the best that a model of its latents can do.
    real: of the true sounds.
    floor: of the true sounds, each beside the pictures of the next clip.
    networks: of the model's and of the codec's sounds, the mean of each number that a scorer gives;
      empty without one.
  """

  scores: SoundScores
  codec: SoundScores
  real: SoundScores
  floor: SoundScores
  networks: dict[str, dict[str, float]]

  def as_dict(self) -> dict[str, Any]:
    """Returns plain JSON values."""
    heard = {name: getattr(self, name).as_dict() for name in ('scores', 'codec', 'real', 'floor')}
    return {**heard, 'networks': self.networks}

  def table(self) -> str:
    """Formats the scores beside ceiling and floor, for people."""
    rows = (
      ('held-out clips', self.scores),
      ('real, through the codec', self.codec),
      ('real (ceiling)', self.real),
      ('of another clip (floor)', self.floor),
    )
    lines = [f'{"":24}' + ''.join(f'{label:>17}' for label, _ in _COLUMNS.values())]
    for label, scores in rows:
      values = [getattr(scores, name) * unit for name, (_, unit) in _COLUMNS.items()]
      cells = ['-' if math.isnan(value) else f'{value:.1f}' for value in values]
      lines.append(f'{label:24}' + ''.join(f'{cell:>17}' for cell in cells))
    for name, means in self.networks.items():
      lines.append(f'{name}: {means[MODEL]:.4f} of the model, {means[CODEC]:.4f} of the codec')
    return '\n'.join([*lines, f'{self.scores.clips} clip(s)'])


@dataclasses.dataclass(frozen=True)
class JudgedClip:
  """A held-out clip with what was made for it."""

  prompt: str
  video: UInt8[np.ndarray, 't h w 3'] | None
  heard: AudioPair


def judge_soundtracks(
  pipeline: AudioPipeline,
  *,
  samples: int = 64,
  seed: int = 0,
  scorer: CommandScorer | None = None,
) -> tuple[AudioScores, list[JudgedClip]]:
  """Makes sounds for validation clips of the small world and judges them.

  Args:
    pipeline: of a model that was trained on moving digits.
    samples: how many clips.
    seed: of the noise.
    scorer: judges the sounds as well, each against its caption.

  Returns:
    The scores, and the clips with the true sound, the codec's and the model's.

  Raises:
    ConfigError: the model was trained on something else.
  """
  config = check_digits(pipeline)
  name = longest_audio_bucket(config)
  data = data_settings(fields_of(config, 'data'))
  shapes = audio_shapes(fields_of(config, 'buckets'))
  source = make_audio_sources(data, {name: shapes[name]}, 'validation')[name]
  clips = [source[index] for index in evenly(len(source), samples)]
  real = np.stack([clip['audio'] for clip in clips])
  prompts = [clean_prompt(clip['caption']) for clip in clips]
  made = pipeline.generate(prompts, frame_features=_features(pipeline, clips), seed=seed)
  again = np.concatenate(
    [_through(pipeline, real[first : first + _ROWS]) for first in range(0, len(real), _ROWS)]
  )
  networks = {}
  if scorer is not None:
    both = {MODEL: made, CODEC: again}
    found = {
      way: scorer.measure(list(sounds), pipeline.rate, captions=prompts)
      for way, sounds in both.items()
    }
    networks = {
      number: {way: float(found[way][number].mean()) for way in both} for number in found[MODEL]
    }
  accompaniment = AudioScores(
    scores=judge_clips(made, clips),
    codec=judge_clips(again, clips),
    real=sound_ceiling(clips),
    floor=sound_floor(clips),
    networks=networks,
  )
  shown = [
    JudgedClip(prompt, clip.get('video'), AudioPair(truth, {CODEC: decoded, MODEL: sound}))
    for prompt, clip, truth, decoded, sound in zip(prompts, clips, real, again, made, strict=True)
  ]
  return accompaniment, shown


def check_digits(pipeline: AudioPipeline) -> ConfigDict:
  """Returns the configuration of a model that was trained on moving digits.

  Raises:
    ConfigError: it was trained on something else.
  """
  config = pipeline.config
  if config.data.kind != 'digits':
    raise ConfigError(
      f'the judge hears moving digits; this model was trained on {config.data.kind!r} data'
    )
  return config


def write_clips(
  directory: pathlib.Path, clips: Sequence[JudgedClip], fps: float, rate: int
) -> list[pathlib.Path]:
  """Writes the sounds as `write_audio` does, and the pictures with the model's sound as mp4."""
  paths = write_audio(directory, [clip.heard for clip in clips], rate)
  for index, clip in enumerate(clips):
    if clip.video is not None:
      paths.append(directory / 'sounds' / f'{index:03d}.mp4')
      write_clip(paths[-1], clip.video, fps)
      sound = np.clip(clip.heard.again[MODEL], -1, 1)
      write_soundtrack(paths[-1], paths[-1], [sound], rate)
  return paths


def _features(
  pipeline: AudioPipeline, clips: Sequence[dict[str, Any]]
) -> Float[np.ndarray, 'b t e'] | None:
  if 'video' not in clips[0]:
    return None
  fps = pipeline.config.data.fps
  return np.stack([pipeline.frame_features(clip['video'], fps) for clip in clips])


def _through(pipeline: AudioPipeline, sounds: Float[np.ndarray, 'b s c']) -> np.ndarray:
  latents = pipeline.codec.encode(jnp.asarray(sounds))
  return np.asarray(pipeline.codec.decode(latents, sounds.shape[1]))
