"""Measures how well generated audio matches videos of a world (Movie Gen §6)."""

import dataclasses
import math
import pathlib
from collections.abc import Sequence

import jax.numpy as jnp
import numpy as np

from mgjax.core.configuration.keys import JSON, Fields
from mgjax.core.settings import fields_of
from mgjax.core.typing import Float, Sample, UInt8
from mgjax.data.audio_sources import make_audio_sources
from mgjax.data.clips import evenly
from mgjax.data.media.audio import write_soundtrack
from mgjax.data.media.viewing import write_clip
from mgjax.data.settings import audio_shapes, data_settings, longest_audio_bucket
from mgjax.data.synthetic_datasets import judge_of
from mgjax.lab.evaluation.audio_reconstruction import CODEC, AudioPair, write_audio
from mgjax.lab.evaluation.external_scorers import CommandScorer
from mgjax.lab.evaluation.record.measured import Measured, Metric, mean_metric, pooled_metric
from mgjax.lab.evaluation.record.show import Show, sounds_of
from mgjax.lab.worlds.judging import SoundJudge
from mgjax.models.text.prompts import clean_prompt
from mgjax.sections.audio.pipeline import AudioPipeline
from mgjax.sections.audio.rerank import RATE, motion_change, velocities

MODEL = 'model'
SHOWN = 4  # clips that are written
_ROWS = 8  # sounds that the codec gets at a time


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
  candidates: int = 1,
  scorer: CommandScorer | None = None,
) -> tuple[Measured, list[JudgedClip]]:
  """Makes sounds for validation clips of a world, which its judge hears (`lab/worlds/judging.py`).

  Beside the model's sounds stand the true ones, encoded and decoded, which is the best that a model
  of these latents can do, the true ones as they are, and each beside the pictures of the next clip.
  Of several candidates the one is heard whose onsets follow the pictures best. A scorer judges each
  sound against its caption as well. Returns the numbers, and the clips with the true sound, the
  codec's and the model's.
  """
  config = pipeline.config
  judge = sound_judge(pipeline)
  data = data_settings(fields_of(config, 'data'))
  shapes = audio_shapes(fields_of(config, 'buckets'))
  name = longest_audio_bucket(shapes)
  source = make_audio_sources(data, {name: shapes[name]}, 'validation')[name]
  clips = [source[index] for index in evenly(len(source), samples)]
  real = np.stack([clip['audio'] for clip in clips])
  prompts = [clean_prompt(clip['caption']) for clip in clips]
  choice: JSON = {}
  if candidates > 1:
    moments = round(RATE * pipeline.default_seconds)
    motions = [
      motion_change(velocities(clip['video'], data.fps), data.fps, moments) for clip in clips
    ]
    choice = {'candidates': candidates, 'motions': np.stack(motions)}
  features = _features(pipeline, clips)
  made = pipeline.generate(prompts, frame_features=features, seed=seed, **choice)
  again = np.concatenate(
    [_through(pipeline, real[first : first + _ROWS]) for first in range(0, len(real), _ROWS)]
  )
  read = judge.read(made, clips)
  scores = {
    'scores': judge.scores(read),
    'codec': judge.scores(judge.read(again, clips)),
    'real': judge.scores(judge.read(real, clips)),
    'floor': judge.scores(judge.read(real, [*clips[1:], *clips[:1]])),
  }
  metrics = _metrics(judge, read, scores)
  networks = {}
  if scorer is not None:
    found, decoded = (
      scorer.measure(list(sounds), pipeline.rate, captions=prompts) for sounds in (made, again)
    )
    for name, each in found.items():
      networks[name] = {MODEL: float(each.mean()), CODEC: float(decoded[name].mean())}
      beside = {CODEC: networks[name][CODEC]}
      metrics[f'networks/{name}/{MODEL}'] = mean_metric(each, name, beside=beside)
  measured = Measured(
    metrics,
    prompts,
    sound=True,
    record={**scores, 'networks': networks},
    notes=[f'{len(clips)} clip(s)'],
  )
  shown = [
    JudgedClip(prompt, clip.get('video'), AudioPair(truth, {CODEC: decoded, MODEL: sound}))
    for prompt, clip, truth, decoded, sound in zip(prompts, clips, real, again, made, strict=True)
  ]
  return measured, shown


def _metrics(judge: SoundJudge, read: Sequence[object], scores: Fields) -> dict[str, Metric]:
  """The scores, which are of all events together, with intervals over clips."""
  metrics = {}
  alone = [judge.scores([reading]) for reading in read]
  others = {'codec': 'codec', 'real': 'real', 'of another clip': 'floor'}
  for name, column in judge.columns.items():
    if not math.isfinite(getattr(scores['scores'], name)):
      continue

    def pooled(places: np.ndarray, name: str = name) -> float:
      return getattr(judge.scores([read[place] for place in places]), name)

    metrics[f'scores/{name}'] = pooled_metric(
      [getattr(each, name) for each in alone],
      pooled,
      column.label.removesuffix(', %'),
      column.better,
      beside={title: getattr(scores[way], name) for title, way in others.items()},
    )
  return metrics


def sound_judge(pipeline: AudioPipeline) -> SoundJudge:
  """Makes the judge of the world that a model was trained on; ConfigError if there is none."""
  return judge_of(pipeline.config.data.kind, 'sound')()


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


def soundtracks_of(clips: Sequence[JudgedClip], fps: float, rate: int) -> Show:
  """Returns what writes clips with the model's sound as .mp4, or as .wav without pictures."""
  sounds = sounds_of({place: clip.heard.again[MODEL] for place, clip in enumerate(clips)}, rate)

  def show(place: int, stem: pathlib.Path) -> pathlib.Path | None:
    if clips[place].video is None:
      return sounds(place, stem)
    path = stem.with_suffix('.mp4')
    _write_heard(path, clips[place], fps, rate)
    return path

  return show


def _write_heard(path: pathlib.Path, clip: JudgedClip, fps: float, rate: int) -> None:
  assert clip.video is not None
  write_clip(path, clip.video, fps)
  write_soundtrack(path, path, [np.clip(clip.heard.again[MODEL], -1, 1)], rate)


def _features(
  pipeline: AudioPipeline, clips: Sequence[Sample]
) -> Float[np.ndarray, 'b t e'] | None:
  if 'video' not in clips[0]:
    return None
  fps = pipeline.config.data.fps
  return np.stack([pipeline.frame_features(clip['video'], fps) for clip in clips])


def _through(pipeline: AudioPipeline, sounds: Float[np.ndarray, 'b s c']) -> np.ndarray:
  latents = pipeline.codec.encode(jnp.asarray(sounds))
  return np.asarray(pipeline.codec.decode(latents, sounds.shape[1]))
