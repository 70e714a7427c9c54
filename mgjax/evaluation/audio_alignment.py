"""Measures how well generated audio matches digit videos in time and tone (Movie Gen §6)."""

import dataclasses
import math
import pathlib
from collections.abc import Callable, Mapping, Sequence
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
from mgjax.digits.sound_judge import (
  SoundReading,
  SoundScores,
  judge_clips,
  judge_sounds,
  read_clips,
  sound_ceiling,
  sound_floor,
)
from mgjax.evaluation.audio_reconstruction import CODEC, AudioPair, sounds_of, write_audio
from mgjax.evaluation.reconstruction import evenly
from mgjax.evaluation.record.measured import Measured, mean_metric, pooled_metric
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
    read: of the model's sounds, what is read of each.
    prompts: of them.
    numbers: of the model's sounds, what a scorer says of each.
  """

  scores: SoundScores
  codec: SoundScores
  real: SoundScores
  floor: SoundScores
  networks: dict[str, dict[str, float]]
  read: Sequence[SoundReading] = ()
  prompts: Sequence[str] = ()
  numbers: Mapping[str, Sequence[float] | np.ndarray] = dataclasses.field(default_factory=dict)

  def as_dict(self) -> dict[str, Any]:
    """Returns plain JSON values."""
    heard = {name: getattr(self, name).as_dict() for name in ('scores', 'codec', 'real', 'floor')}
    return {**heard, 'networks': self.networks}

  def measured(self) -> Measured:
    """Returns the scores, which are of all events together, with intervals over clips."""
    metrics = {}
    alone = [judge_sounds([reading]) for reading in self.read]
    others = {'codec': self.codec, 'real': self.real, 'of another clip': self.floor}
    for name, (label, _) in _COLUMNS.items():
      if not math.isfinite(getattr(self.scores, name)):
        continue

      def pooled(places: np.ndarray, name: str = name) -> float:
        return getattr(judge_sounds([self.read[place] for place in places]), name)

      metrics[f'scores/{name}'] = pooled_metric(
        [getattr(each, name) for each in alone],
        pooled,
        label.removesuffix(', %'),
        1 if name in ('tone', 'silence') else -1,
        beside={way: getattr(scores, name) for way, scores in others.items()},
      )
    for name, each in self.numbers.items():
      beside = {CODEC: self.networks[name][CODEC]}
      metrics[f'networks/{name}/{MODEL}'] = mean_metric(each, name, beside=beside)
    return Measured(metrics, self.prompts, sound=True)

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
  data = data_settings(fields_of(config, 'data'))
  shapes = audio_shapes(fields_of(config, 'buckets'))
  name = longest_audio_bucket(shapes)
  source = make_audio_sources(data, {name: shapes[name]}, 'validation')[name]
  clips = [source[index] for index in evenly(len(source), samples)]
  real = np.stack([clip['audio'] for clip in clips])
  prompts = [clean_prompt(clip['caption']) for clip in clips]
  made = pipeline.generate(prompts, frame_features=_features(pipeline, clips), seed=seed)
  again = np.concatenate(
    [_through(pipeline, real[first : first + _ROWS]) for first in range(0, len(real), _ROWS)]
  )
  networks, numbers = {}, {}
  if scorer is not None:
    both = {MODEL: made, CODEC: again}
    found = {
      way: scorer.measure(list(sounds), pipeline.rate, captions=prompts)
      for way, sounds in both.items()
    }
    networks = {
      number: {way: float(found[way][number].mean()) for way in both} for number in found[MODEL]
    }
    numbers = found[MODEL]
  read = read_clips(made, clips)
  accompaniment = AudioScores(
    scores=judge_sounds(read),
    codec=judge_clips(again, clips),
    real=sound_ceiling(clips),
    floor=sound_floor(clips),
    networks=networks,
    read=read,
    prompts=prompts,
    numbers=numbers,
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
      _write_heard(paths[-1], clip, fps, rate)
  return paths


def soundtracks_of(
  clips: Sequence[JudgedClip], fps: float, rate: int
) -> Callable[[int, pathlib.Path], pathlib.Path]:
  """Returns what writes clips with the model's sound as .mp4, or as .wav without pictures."""
  sounds = sounds_of({place: clip.heard.again[MODEL] for place, clip in enumerate(clips)}, rate)

  def show(place: int, stem: pathlib.Path) -> pathlib.Path:
    if clips[place].video is None:
      return sounds(place, stem)
    path = stem.with_suffix('.mp4')
    path.parent.mkdir(parents=True, exist_ok=True)
    _write_heard(path, clips[place], fps, rate)
    return path

  return show


def _write_heard(path: pathlib.Path, clip: JudgedClip, fps: float, rate: int) -> None:
  assert clip.video is not None
  write_clip(path, clip.video, fps)
  write_soundtrack(path, path, [np.clip(clip.heard.again[MODEL], -1, 1)], rate)


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
