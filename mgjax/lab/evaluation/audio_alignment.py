"""Measures how well generated audio matches videos of a synthetic dataset (Movie Gen §6)."""

import dataclasses
import math
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np

from mgjax.core.configuration.keys import JSON
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
from mgjax.sections.audio.rerank import ALIGNMENT_RATE, motion_change, velocities

MODEL = 'model'
SHOWN = 4  # clips to write
_ROWS = 8  # sounds in a batch of the codec


@dataclasses.dataclass(frozen=True)
class JudgedClip:
  """A held-out clip with the audio that was generated for it."""

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
  """Generates audio for validation clips and scores it with the sound judge of their dataset.

  The baselines are the true audio after the codec (the best that a model of these latents can do),
  the true audio, and the true audio with the video of the next clip. With several `candidates` the
  one counts whose onsets follow the video best. A `scorer` also rates each sound against its
  caption. Returns the numbers, and the clips with the true audio, the codec's and the model's.
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
    moments = round(ALIGNMENT_RATE * pipeline.default_seconds)
    motions = [
      motion_change(velocities(clip['video'], data.fps), data.fps, moments) for clip in clips
    ]
    choice = {'candidates': candidates, 'motions': np.stack(motions)}
  features = _features(pipeline, clips)
  generated = pipeline.generate(prompts, frame_features=features, seed=seed, **choice)
  again = np.concatenate(
    [_through(pipeline, real[first : first + _ROWS]) for first in range(0, len(real), _ROWS)]
  )
  readings = judge.read(generated, clips)
  scores = {
    'scores': judge.scores(readings),
    'codec': judge.scores(judge.read(again, clips)),
    'real': judge.scores(judge.read(real, clips)),
    'floor': judge.scores(judge.read(real, [*clips[1:], *clips[:1]])),
  }
  metrics = _metrics(judge, readings, scores)
  networks = {}
  if scorer is not None:
    scored, decoded = (
      scorer.measure(list(sounds), pipeline.rate, captions=prompts) for sounds in (generated, again)
    )
    for name, values in scored.items():
      networks[name] = {MODEL: float(values.mean()), CODEC: float(decoded[name].mean())}
      beside = {CODEC: networks[name][CODEC]}
      metrics[f'networks/{name}/{MODEL}'] = mean_metric(values, name, beside=beside)
  measured = Measured(
    metrics,
    prompts,
    sound=True,
    record={**scores, 'networks': networks},
    notes=[f'{len(clips)} clip(s)'],
  )
  judged = [
    JudgedClip(prompt, clip.get('video'), AudioPair(truth, {CODEC: decoded, MODEL: sound}))
    for prompt, clip, truth, decoded, sound in zip(
      prompts, clips, real, again, generated, strict=True
    )
  ]
  return measured, judged


def _metrics(
  judge: SoundJudge, readings: Sequence[Any], scores: Mapping[str, Any]
) -> dict[str, Metric]:
  """Returns the scores, which pool the events of all clips, with intervals over clips."""
  metrics = {}
  per_clip = [judge.scores([reading]) for reading in readings]
  others = {'codec': 'codec', 'real': 'real', 'of another clip': 'floor'}
  for name, column in judge.columns.items():
    if not math.isfinite(getattr(scores['scores'], name)):
      continue

    def pooled(indices: np.ndarray, name: str = name) -> float:
      return getattr(judge.scores([readings[index] for index in indices]), name)

    metrics[f'scores/{name}'] = pooled_metric(
      [getattr(clip_scores, name) for clip_scores in per_clip],
      pooled,
      column.label.removesuffix(', %'),
      column.better,
      beside={title: getattr(scores[way], name) for title, way in others.items()},
    )
  return metrics


def sound_judge(pipeline: AudioPipeline) -> SoundJudge:
  """Makes the judge of the synthetic dataset that a model was trained on; ConfigError if there is
  none."""
  return judge_of(pipeline.config.data.kind, 'sound')()


def write_clips(
  directory: pathlib.Path, clips: Sequence[JudgedClip], fps: float, rate: int
) -> list[pathlib.Path]:
  """Writes the audio as `write_audio` does, and the pictures with the model's sound as mp4."""
  paths = write_audio(directory, [clip.heard for clip in clips], rate)
  for index, clip in enumerate(clips):
    if clip.video is not None:
      paths.append(directory / 'sounds' / f'{index:03d}.mp4')
      _write_heard(paths[-1], clip, fps, rate)
  return paths


def soundtracks_of(clips: Sequence[JudgedClip], fps: float, rate: int) -> Show:
  """Returns the function that writes clips with the model's audio: .mp4, or .wav without video."""
  sounds = sounds_of({index: clip.heard.again[MODEL] for index, clip in enumerate(clips)}, rate)

  def show(index: int, stem: pathlib.Path) -> pathlib.Path | None:
    if clips[index].video is None:
      return sounds(index, stem)
    path = stem.with_suffix('.mp4')
    _write_heard(path, clips[index], fps, rate)
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
