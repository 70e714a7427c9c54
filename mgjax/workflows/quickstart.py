"""The quickstart: trains an autoencoder and a flow model, samples, and judges the samples."""

import os
import pathlib
from collections.abc import Callable, Mapping
from typing import Any

from ml_collections import ConfigDict

from mgjax.audio.pipeline import AudioPipeline
from mgjax.checkpoints.workdir import open_checkpoints
from mgjax.core.files import read_optional_json, write_json
from mgjax.data.clips import evenly
from mgjax.evaluation import audio_alignment, own_clips
from mgjax.evaluation.alignment import judge_model, write_shown
from mgjax.evaluation.audio_alignment import judge_soundtracks, write_clips
from mgjax.evaluation.own_clips import judge_clips, write_nearest
from mgjax.evaluation.record.measured import table_of
from mgjax.registry import make_spec
from mgjax.runtime.report.write import report_at_end
from mgjax.runtime.workdir_lock import hold
from mgjax.text.vocabulary import describe_words, words_in
from mgjax.training.run import train
from mgjax.video.pipeline import VideoPipeline
from mgjax.workflows.encode import encode
from mgjax.workflows.stages import ENCODE, Stages, usual_seconds

_SAMPLING = 0.06  # of the training of a model, what sampling and judging usually take

Findings = tuple[Mapping[str, Any], str, list[pathlib.Path]]  # scores, a table for people, pictures


def train_both(
  autoencoder: ConfigDict, model: ConfigDict, workdir: str | os.PathLike[str]
) -> tuple[Stages, pathlib.Path] | None:
  """Trains an autoencoder, encodes the data with it and trains a flow model on that.

  Every stage resumes: the same call again goes on where it stopped.

  Args:
    autoencoder: configuration of the first, of videos or of sound.
    model: configuration of the second; its `autoencoder` and `data.latents` are set here.
    workdir: gets a directory a stage, named after the components.

  Returns:
    The stages with their times, and the work directory of the flow model; None if a signal asked to
    stop, what is done is saved.

  Raises:
    ConfigError: another process runs in the work directory.
  """
  with hold(workdir):
    return _train_both(autoencoder, model, pathlib.Path(workdir))


def _train_both(
  autoencoder: ConfigDict, model: ConfigDict, workdir: pathlib.Path
) -> tuple[Stages, pathlib.Path] | None:
  parts = [(autoencoder, str(autoencoder.component)), (model, str(model.component))]
  first, last = [(part, usual_seconds(config, part)) for config, part in parts]
  sampling = last[1] and _SAMPLING * last[1]
  usual = dict([first, ('latents', usual_seconds(model, ENCODE)), last, ('samples', sampling)])
  stages = Stages(workdir, usual)
  model.autoencoder = os.fspath(workdir / autoencoder.component)
  model.data.latents = os.fspath(workdir / 'latents')
  state = stages.run(
    autoencoder.component, lambda: train(autoencoder, model.autoencoder, make_spec)
  )
  if int(state.step) < autoencoder.train.steps:
    return None  # nothing may be built on a half-trained autoencoder
  stages.run('latents', lambda: encode(model, model.data.latents))
  state = stages.run(model.component, lambda: train(model, workdir / model.component, make_spec))
  if int(state.step) < model.train.steps:
    return None
  return stages, workdir / model.component


def report_digits(
  stages: Stages, model: pathlib.Path, workdir: str | os.PathLike[str], *, samples: int
) -> tuple[str, list[pathlib.Path]]:
  """Samples captions that training never showed, judges them and writes pictures and report.json.

  Returns:
    A table for people, and the paths of sheet, animation, videos and report.
  """
  workdir = pathlib.Path(workdir)

  def work() -> Findings:
    sampler = VideoPipeline(model)
    alignment, videos, prompts = judge_model(sampler, samples=samples)
    sheets, paths = write_shown(workdir, videos, prompts, sampler.config.data.fps)
    return alignment.record, table_of(alignment), [*sheets, *paths]

  return _report(stages, model, workdir, samples, work)


def report_audio(
  stages: Stages, model: pathlib.Path, workdir: str | os.PathLike[str], *, samples: int
) -> tuple[str, list[pathlib.Path]]:
  """Makes sounds for clips that training never showed, judges them and writes what is heard.

  Returns:
    A table for people, and the paths of the sheet, the sounds, the videos and the report.
  """
  workdir = pathlib.Path(workdir)

  def work() -> Findings:
    tracker = AudioPipeline(model)
    found, clips = judge_soundtracks(tracker, samples=samples)
    shown = [clips[index] for index in evenly(len(clips), audio_alignment.SHOWN)]
    paths = write_clips(workdir / 'samples', shown, tracker.config.data.fps, tracker.rate)
    return found.record, table_of(found), paths

  return _report(stages, model, workdir, samples, work)


def report_clips(
  stages: Stages, model: pathlib.Path, workdir: str | os.PathLike[str]
) -> tuple[str, list[pathlib.Path]]:
  """Samples captions of the user's clips and writes each sample below the clip nearest to it.

  Returns:
    A table for people, and the paths of sheet, animation, videos and report.
  """
  workdir = pathlib.Path(workdir)

  def work() -> Findings:
    sampler = VideoPipeline(model)
    found, videos, windows = judge_clips(sampler, samples=own_clips.SHOWN)
    sheets, paths = write_nearest(workdir, found, videos, windows, sampler.config.data.fps)
    return found.record, table_of(found), [*sheets, *paths]

  return _report(stages, model, workdir, own_clips.SHOWN, work)


def _report(
  stages: Stages,
  model: pathlib.Path,
  workdir: pathlib.Path,
  samples: int,
  work: Callable[[], Findings],
) -> tuple[str, list[pathlib.Path]]:
  """Writes what `work` finds, what it is about, what it took and how it was shown."""
  step = open_checkpoints(model).steps()[-1]
  about = {'step': step, 'samples': samples}
  if report := earlier_report(workdir, about):
    return report
  with hold(workdir), report_at_end(workdir):
    scores, text, paths = stages.run('samples', work)
    seconds = {'seconds': round(sum(stages.seconds.values()), 1), 'stages': stages.seconds}
    shown = {'text': text.split('\n'), 'files': [os.fspath(p.relative_to(workdir)) for p in paths]}
    write_json(workdir / 'report.json', {**scores, **seconds, 'about': about, 'shown': shown})
  return text, [*paths, workdir / 'report.json']


def earlier_report(workdir, about) -> tuple[str, list[pathlib.Path]] | None:
  """What an earlier call showed of the same weights, so that a finished quickstart ends at once."""
  path = workdir / 'report.json'

  def right(report: Any) -> bool:
    words = [*report['shown']['text'], *report['shown']['files']]
    return all(isinstance(word, str) for word in words)

  report = read_optional_json(path, right)
  if report is None or report.get('about') != about:
    return None
  shown = report['shown']
  return '\n'.join(shown['text']), [*(workdir / name for name in shown['files']), path]


def known_words(model: pathlib.Path) -> str:
  """Lists the words that a trained model knows, if they are few; '' if not."""
  record = open_checkpoints(model).newest_record() or {'meta': {'notes': {}}}
  return describe_words(words_in(record['meta']['notes']))
