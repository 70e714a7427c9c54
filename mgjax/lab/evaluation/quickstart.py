"""Samples a trained model, judges the samples and writes report.json: the end of the quickstart."""

import os
import pathlib
import shlex
import sys
import textwrap
from collections.abc import Callable
from typing import Any, NamedTuple

from mgjax.core.configuration.keys import Fields
from mgjax.core.errors import ConfigError
from mgjax.core.files import read_json, read_optional_json, write_json
from mgjax.data.clips import evenly
from mgjax.data.synthetic_datasets import WORLDS
from mgjax.lab.evaluation import audio_alignment
from mgjax.lab.evaluation.audio_alignment import judge_soundtracks, write_clips
from mgjax.lab.evaluation.own_clips import judge_clips, write_nearest
from mgjax.lab.evaluation.record.measured import table_of
from mgjax.lab.evaluation.worlds.alignment import judge_model, write_shown
from mgjax.models.text.vocabulary import describe_words, words_in
from mgjax.registry import find_component
from mgjax.sections.audio.pipeline import AudioPipeline
from mgjax.sections.video.pipeline import VideoPipeline
from mgjax.training.checkpoints.workdir import open_checkpoints, read_config

REPORT = 'report.json'

Findings = tuple[Fields, str, list[pathlib.Path]]  # scores, a table for people, pictures


def _video(model: pathlib.Path, workdir: pathlib.Path, samples: int) -> Findings:
  """Samples captions that training never showed."""
  sampler = VideoPipeline(model)
  alignment, videos, prompts = judge_model(sampler, samples=samples)
  sheets, paths = write_shown(workdir, videos, prompts, sampler.config.data.fps)
  return alignment.record, table_of(alignment), [*sheets, *paths]


def _sound(model: pathlib.Path, workdir: pathlib.Path, samples: int) -> Findings:
  """Makes sounds for clips that training never showed."""
  tracker = AudioPipeline(model)
  found, clips = judge_soundtracks(tracker, samples=samples)
  shown = [clips[index] for index in evenly(len(clips), audio_alignment.SHOWN)]
  paths = write_clips(workdir / 'samples', shown, tracker.config.data.fps, tracker.rate)
  return found.record, table_of(found), paths


def _clips(model: pathlib.Path, workdir: pathlib.Path, samples: int) -> Findings:
  """Samples captions of the user's clips and writes each sample below the clip nearest to it."""
  sampler = VideoPipeline(model)
  found, videos, windows = judge_clips(sampler, samples=samples)
  sheets, paths = write_nearest(workdir, found, videos, windows, sampler.config.data.fps)
  return found.record, table_of(found), [*sheets, *paths]


class _Judge(NamedTuple):
  """Samples a model and judges that, and how a user samples it: a prompt and other flags."""

  find: Callable[[pathlib.Path, pathlib.Path, int], Findings]
  words: Callable[[pathlib.Path, list[pathlib.Path]], list[str]]  # of the workdir and its pictures


def _sound_words(workdir: pathlib.Path, paths: list[pathlib.Path]) -> list[str]:
  del workdir
  video = next(path for path in paths if path.suffix == '.mp4')
  return [f'--video={video}', '--prompt=the red digit 3 bounces']


def _clips_words(workdir: pathlib.Path, paths: list[pathlib.Path]) -> list[str]:
  del paths
  return [f'--prompt={read_json(workdir / REPORT, mend="remove it")["captions"][0]}']


JUDGES = {'sound': _Judge(_sound, _sound_words), 'clips': _Judge(_clips, _clips_words)}


def _judge_of(name: str) -> _Judge:
  """The judge of a stage: one of JUDGES, or that of the videos of a world. Raises ConfigError."""
  if name in JUDGES:
    return JUDGES[name]
  if name not in WORLDS:
    raise ConfigError(f'judge = {name!r}; expected one of {", ".join([*JUDGES, *WORLDS])}')
  return _Judge(_video, lambda *_: [f'--prompt={WORLDS[name].example}'])


def is_judged(stage: Fields, workdir: pathlib.Path) -> bool:
  """Says whether report.json is of the newest weights of the model that a stage samples."""
  return earlier_report(workdir, _about(stage, workdir)) is not None


def judge_samples(stage: Fields, workdir: pathlib.Path) -> None:
  """Writes what the judge of a stage finds, what it is about and how it is shown.

  A stage has `of`, the folder of the model in `workdir`, `judge`, one of JUDGES or a world, and
  `samples`. Raises ConfigError if there is no such judge.
  """
  scores, text, paths = _judge_of(stage['judge']).find(
    workdir / stage['of'], workdir, stage['samples']
  )
  shown = {'text': text.split('\n'), 'files': [os.fspath(p.relative_to(workdir)) for p in paths]}
  report = {**scores, 'about': _about(stage, workdir), 'shown': shown}
  write_json(workdir / REPORT, report)


def _about(stage: Fields, workdir: pathlib.Path) -> dict[str, int] | None:
  model = workdir / stage['of']
  steps = open_checkpoints(model).steps() if model.exists() else []
  return {'step': steps[-1], 'samples': stage['samples']} if steps else None


def earlier_report(
  workdir: pathlib.Path, about: dict[str, int] | None
) -> tuple[str, list[pathlib.Path]] | None:
  """What an earlier call showed of the same weights, so that a finished quickstart ends at once."""
  path = workdir / REPORT

  def right(report: Any) -> bool:
    words = [*report['shown']['text'], *report['shown']['files']]
    return all(isinstance(word, str) for word in words)

  report = read_optional_json(path, right)
  if report is None or about is None or report.get('about') != about:
    return None
  shown = report['shown']
  return '\n'.join(shown['text']), [*(workdir / name for name in shown['files']), path]


def shown(config: Fields, workdir: str | os.PathLike[str]) -> str:
  """Returns what a finished run or recipe tells people.

  Of a recipe that ends with samples these are their scores, with intervals, their files and a
  command for more of them; of all it is how to see the curves, where TensorBoard got them.
  """
  workdir = pathlib.Path(workdir)
  told = []
  stage = config['stages'][config['order'][-1]] if 'stages' in config else {}
  report = earlier_report(workdir, _about(stage, workdir)) if 'judge' in stage else None
  if report is not None:
    text, paths = report
    record = open_checkpoints(workdir / stage['of']).newest_record() or {'meta': {'notes': {}}}
    words = describe_words(words_in(record['meta']['notes']))
    told += ['', text, '', *map(str, paths), *(['', *textwrap.wrap(words, 100)] if words else [])]
    told += ['', 'Make your own:', _command(stage, workdir, paths)]
  if [*workdir.glob('tensorboard'), *workdir.glob('*/tensorboard')]:
    told += ['', 'Curves and samples of training (pip install tensorboard):']
    told.append(shlex.join(['tensorboard', f'--logdir={workdir}']))
  return '\n'.join([*told, ''])


def _command(stage: Fields, workdir: pathlib.Path, paths: list[pathlib.Path]) -> str:
  """A command that can be run as it stands, whether or not the environment is activated."""
  python = os.path.relpath(sys.executable)
  python = sys.executable if python.startswith('..') else python
  words = _judge_of(stage['judge']).words(workdir, paths)
  model = workdir / stage['of']
  task = find_component(read_config(model).component).sample_command
  made = [task, f'--workdir={model}', *words, '--out=out.mp4']
  return shlex.join([python, '-m', 'launch.sample', *made])
