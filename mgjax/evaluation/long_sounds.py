"""Soundtracks longer than the model: the ways to make them, side by side (Movie Gen §6)."""

import dataclasses
import pathlib
import tempfile
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from mgjax.core.typing import Float
from mgjax.data.digits import Digits
from mgjax.data.video_io import write_video
from mgjax.evaluation.seams import Seams, gather_seams
from mgjax.evaluation.sound_judge import SoundScores, judge_sound, judge_sounds
from mgjax.train.soundtrack import Extension, Soundtracker

WAYS = ('multi_diffusion', 'autoregressive', 'concatenate')


@dataclasses.dataclass(frozen=True)
class Way:
  """What one way to extend comes to.

  Attributes:
    seams: of the sounds, where windows end.
    scores: of the sounds against the pictures.
    sounds: the first of them, one a clip.
  """

  seams: Seams
  scores: SoundScores
  sounds: Sequence[Float[np.ndarray, 's c']]


def long_clips(tracker: Soundtracker, factor: int, count: int) -> list[dict[str, Any]]:
  """Returns clips of bouncing digits, of unseen handwriting, `factor` times as long."""
  config = tracker.config
  fps, seconds = config.data.fps, factor * tracker.default_seconds
  shape = next(iter(config.buckets.values()))
  digits = Digits(
    split='test', captions='all', motions=('bounce',), colours=tuple(config.data.digits.colours),
    frames=round(seconds * fps), size=(shape.height, shape.width), fps=fps, laps=factor,
    sound=True, length=count,
  )  # fmt: skip
  return [digits[index] for index in range(count)]


def compare_ways(
  tracker: Soundtracker,
  *,
  factor: int = 4,
  clips: int = 8,
  seed: int = 0,
  report: Callable[[str], None] = lambda line: None,
) -> dict[str, Way]:
  """Makes soundtracks of long clips of the small world in every way.

  Args:
    tracker: trained on the small world.
    factor: length, in lengths of training.
    clips: how many.
    seed: of the noise, the same for every way.
    report: is told what was made.

  Returns:
    Way -> what it comes to.
  """
  samples, fps = long_clips(tracker, factor, clips), tracker.config.data.fps
  seconds = factor * tracker.default_seconds
  found = {}
  with tempfile.TemporaryDirectory() as folder:
    paths = [pathlib.Path(folder) / f'{index}.mp4' for index in range(clips)]
    for path, sample in zip(paths, samples, strict=True):
      write_video(path, sample['video'], fps)
    for how in WAYS:
      extension, sounds = Extension(how=how), []
      for index, (path, sample) in enumerate(zip(paths, samples, strict=True)):
        parts = tracker.soundtrack(
          sample['caption'], seconds, film=tracker.film(path), extension=extension,
          seed=seed + index,
        )  # fmt: skip
        sounds.append(np.concatenate(list(parts)))
        report(f'{how}: {index + 1} of {clips}')
      joints = joints_of(tracker, seconds, extension)
      readings = [
        judge_sound(sound, sample['events'], sample['digit'])
        for sound, sample in zip(sounds, samples, strict=True)
      ]
      seams = gather_seams([(sound, joints) for sound in sounds], tracker.rate)
      found[how] = Way(seams, judge_sounds(readings), sounds)
  return found


def joints_of(tracker: Soundtracker, seconds: float, extension: Extension) -> list[float]:
  """Returns when windows, or of multi-diffusion a block's windows, end before the whole does."""
  outer, inner = tracker.plan(seconds, extension)
  cover = outer if inner is None else inner
  return [(start + cover.size) / tracker.latent_rate for start in cover.starts[:-1]]


def table(found: dict[str, Way]) -> str:
  """Formats the ways for people."""
  lines = [
    f'{"":18}{"seam flux":>10}{"rank":>7}{"onsets":>10}{"missed":>8}{"extra":>8}{"tones":>8}'
  ]
  for how, way in found.items():
    scores = way.scores
    lines.append(
      f'{how:18}{way.seams.ratio:9.2f}x{way.seams.rank:7.2f}{scores.onset_error:7.1f} ms'
      f'{scores.missed:8.1%}{scores.extra:8.1%}{scores.tone:8.1%}'
    )
  return '\n'.join(lines)
