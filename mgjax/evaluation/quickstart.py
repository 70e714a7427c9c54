"""From nothing to judged videos: autoencoder, latents, text-to-video model, samples."""

import logging
import os
import pathlib
import time
from collections.abc import Callable
from typing import Any

import numpy as np
from ml_collections import ConfigDict

from mgjax.core.files import read_json, write_json
from mgjax.data.contact_sheet import contact_sheet
from mgjax.data.sources import make_source
from mgjax.data.video_io import write_video
from mgjax.evaluation.alignment import judge_model, spread
from mgjax.text.prompts import clean_prompt
from mgjax.train.encode import encode
from mgjax.train.run import train
from mgjax.train.sampling import Sampler

SHOWN = 12  # videos on the contact sheet

_log = logging.getLogger(__name__)


class Stages:
  """Runs named stages in order and remembers what each one took, over restarts too."""

  def __init__(self, workdir: pathlib.Path):
    self._path = workdir / 'seconds.json'
    self.seconds: dict[str, float] = read_json(self._path) if self._path.exists() else {}

  def run(self, name: str, work: Callable[[], Any]) -> Any:
    """Runs one stage; what it took is added to what earlier attempts at it took."""
    _log.info('%s', f'[{name}]')
    began = time.monotonic()
    try:
      return work()
    finally:
      spent = time.monotonic() - began
      self.seconds[name] = round(self.seconds.get(name, 0.0) + spent, 1)
      write_json(self._path, self.seconds)


def train_both(
  autoencoder: ConfigDict, video: ConfigDict, workdir: str | os.PathLike[str]
) -> tuple[Stages, pathlib.Path]:
  """Trains an autoencoder, encodes the data with it and trains a text-to-video model on that.

  Every stage resumes: the same call again goes on where it stopped.

  Args:
    autoencoder: configuration of the first; its data is encoded for the second.
    video: configuration of the second; `autoencoder` and `data.latents` are set here.
    workdir: gets a directory a stage.

  Returns:
    The stages with their times, and the work directory of the text-to-video model.
  """
  workdir = pathlib.Path(workdir)
  stages = Stages(workdir)
  video.autoencoder = os.fspath(workdir / 'autoencoder')
  video.data.latents = os.fspath(workdir / 'latents')
  stages.run('autoencoder', lambda: train(autoencoder, video.autoencoder))
  stages.run('latents', lambda: encode(video, video.data.latents))
  stages.run('video', lambda: train(video, workdir / 'video'))
  return stages, workdir / 'video'


def report_digits(
  stages: Stages, model: pathlib.Path, workdir: str | os.PathLike[str], *, samples: int
) -> tuple[str, list[pathlib.Path]]:
  """Samples captions that training never showed, judges them and writes pictures and report.json.

  Returns:
    A table for people, and the paths of the contact sheet, the videos and the report.
  """
  workdir = pathlib.Path(workdir)

  def work():
    sampler = Sampler(model)
    alignment, videos, prompts = judge_model(sampler, samples=samples)
    return alignment, *write_shown(workdir, videos, prompts, sampler.config.data.fps)

  alignment, sheet, paths = stages.run('samples', work)
  report = workdir / 'report.json'
  seconds = round(sum(stages.seconds.values()), 1)
  write_json(report, {**alignment.as_dict(), 'seconds': seconds, 'stages': stages.seconds})
  return alignment.table(), [sheet, *paths, report]


def write_shown(
  directory: pathlib.Path, videos: np.ndarray, prompts: list[str], fps: float
) -> tuple[pathlib.Path, list[pathlib.Path]]:
  """Writes some of the videos as mp4 and on one contact sheet."""
  chosen = spread(prompts, SHOWN)
  paths = []
  for place, index in enumerate(chosen):
    paths.append(directory / 'samples' / f'{place:03d}.mp4')
    write_video(paths[-1], videos[index], fps)
  sheet = directory / 'samples.png'
  contact_sheet(sheet, [videos[i] for i in chosen], [prompts[i] for i in chosen])
  return sheet, paths


def report_clips(
  stages: Stages, model: pathlib.Path, workdir: str | os.PathLike[str]
) -> tuple[str, list[pathlib.Path]]:
  """Samples the captions of the user's clips and writes each sample below the clip itself.

  The report has the reconstruction's signal to noise ratio, and for each caption the clip to which
  its sample is nearest in mean squared error: its own, once the model has learnt the clips.

  Returns:
    A table for people, and the paths of the contact sheet, the videos and the report.
  """
  workdir = pathlib.Path(workdir)

  def work():
    sampler = Sampler(model)
    clips = _distinct(sampler, SHOWN)
    prompts = [clip['caption'] for clip in clips]
    originals = np.stack([clip['video'] for clip in clips])
    videos = sampler([clean_prompt(prompt) for prompt in prompts])
    rows = [row for pair in zip(originals, videos, strict=True) for row in pair]
    titles = [title for prompt in prompts for title in (prompt, 'sample')]
    contact_sheet(workdir / 'samples.png', rows, titles)
    paths = [workdir / 'samples' / f'{index:03d}.mp4' for index in range(len(videos))]
    for path, video in zip(paths, videos, strict=True):
      write_video(path, video, sampler.config.data.fps)
    return prompts, nearest(videos, originals), sampler.reconstruction_psnr(originals), paths

  prompts, found, psnr, paths = stages.run('samples', work)
  own = sum(index == place for place, index in enumerate(found)) / len(found)
  report = workdir / 'report.json'
  seconds = round(sum(stages.seconds.values()), 1)
  write_json(
    report,
    {'nearest_is_own': own, 'reconstruction_psnr': psnr, 'captions': prompts, 'nearest': found,
     'seconds': seconds, 'stages': stages.seconds},
  )  # fmt: skip
  lines = [f'{prompts[i]} -> nearest clip: {prompts[j]}' for i, j in enumerate(found)]
  lines += [f'nearest is its own clip: {own:.0%}', f'reconstruction: {psnr:.1f} dB']
  return '\n'.join(lines), [workdir / 'samples.png', *paths, report]


def nearest(videos: np.ndarray, originals: np.ndarray) -> list[int]:
  """Returns for each video the index of the original with the least mean squared difference."""
  differences = videos[:, None].astype(np.float32) - originals[None].astype(np.float32)
  return np.mean(differences**2, axis=(2, 3, 4, 5)).argmin(axis=1).tolist()


def _distinct(sampler: Sampler, most: int) -> list[dict[str, Any]]:
  """The first window of each of the first clips with different captions."""
  config = sampler.config
  name, shape = max(config.buckets.items(), key=lambda item: item[1].frames)
  source = make_source(config.data.to_dict() | {'latents': ''}, name, shape, 'train')
  clips: dict[str, dict[str, Any]] = {}
  for index in range(len(source)):
    clip = source[index]
    clips.setdefault(clip['caption'], clip)
    if len(clips) == most:
      break
  return list(clips.values())
