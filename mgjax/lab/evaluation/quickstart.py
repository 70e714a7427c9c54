"""Last step of the quickstart: samples a trained model, judges the samples, writes report.json."""

import os
import pathlib
import shlex
import sys
import textwrap
from collections.abc import Callable, Mapping
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
from mgjax.lab.evaluation.worlds.alignment import judge_model, write_samples
from mgjax.models.text.vocabulary import describe_words, words_in
from mgjax.registry import find_component
from mgjax.sections.audio.pipeline import AudioPipeline
from mgjax.sections.video.pipeline import VideoPipeline
from mgjax.training.checkpoints.workdir import open_checkpoints, read_config

REPORT = 'report.json'

Findings = tuple[Mapping[str, Any], str, list[pathlib.Path]]  # scores, a table as text, pictures


def _video(model: pathlib.Path, workdir: pathlib.Path, samples: int) -> Findings:
  """Samples held-out captions."""
  sampler = VideoPipeline(model)
  alignment, videos, prompts = judge_model(sampler, samples=samples)
  sheets, paths = write_samples(workdir, videos, prompts, sampler.config.data.fps)
  return alignment.record, table_of(alignment), [*sheets, *paths]


def _sound(model: pathlib.Path, workdir: pathlib.Path, samples: int) -> Findings:
  """Makes audio for clips that training never showed."""
  tracker = AudioPipeline(model)
  measured, clips = judge_soundtracks(tracker, samples=samples)
  selected = [clips[index] for index in evenly(len(clips), audio_alignment.SHOWN)]
  paths = write_clips(workdir / 'samples', selected, tracker.config.data.fps, tracker.rate)
  return measured.record, table_of(measured), paths


def _clips(model: pathlib.Path, workdir: pathlib.Path, samples: int) -> Findings:
  """Samples captions of the user's clips and writes each sample below its nearest clip."""
  sampler = VideoPipeline(model)
  measured, videos, windows = judge_clips(sampler, samples=samples)
  sheets, paths = write_nearest(workdir, measured, videos, windows, sampler.config.data.fps)
  return measured.record, table_of(measured), [*sheets, *paths]


class _Judge(NamedTuple):
  """How to judge samples of a model, and the flags with which a user samples it."""

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
  """The judge of a stage: one of JUDGES, or that of the videos of a synthetic dataset. Raises
  ConfigError."""
  if name in JUDGES:
    return JUDGES[name]
  if name not in WORLDS:
    raise ConfigError(f'judge = {name!r}; expected one of {", ".join([*JUDGES, *WORLDS])}')
  return _Judge(_video, lambda *_: [f'--prompt={WORLDS[name].example}'])


def is_judged(stage: Mapping[str, Any], workdir: pathlib.Path) -> bool:
  """Returns whether report.json is about the newest weights of the model that a stage samples."""
  return earlier_report(workdir, _about(stage, workdir)) is not None


def judge_samples(stage: Mapping[str, Any], workdir: pathlib.Path) -> None:
  """Writes report.json: the findings of a stage's judge, their weights, and how to show them.

  A stage has `of`, the folder of the model in `workdir`, `judge`, one of JUDGES or a synthetic
  dataset, and `samples`. Raises ConfigError if there is no such judge.
  """
  scores, text, paths = _judge_of(stage['judge']).find(
    workdir / stage['of'], workdir, stage['samples']
  )
  summary = {'text': text.split('\n'), 'files': [os.fspath(p.relative_to(workdir)) for p in paths]}
  report = {**scores, 'about': _about(stage, workdir), 'shown': summary}
  write_json(workdir / REPORT, report)


def _about(stage: Fields, workdir: pathlib.Path) -> dict[str, int] | None:
  model = workdir / stage['of']
  steps = open_checkpoints(model).steps() if model.exists() else []
  return {'step': steps[-1], 'samples': stage['samples']} if steps else None


def earlier_report(
  workdir: pathlib.Path, about: dict[str, int] | None
) -> tuple[str, list[pathlib.Path]] | None:
  """Returns the result of an earlier call for the same weights, or None.

  With it a finished quickstart ends at once.
  """
  path = workdir / REPORT

  def right(report: Any) -> bool:
    words = [*report['shown']['text'], *report['shown']['files']]
    return all(isinstance(word, str) for word in words)

  report = read_optional_json(path, right)
  if report is None or about is None or report.get('about') != about:
    return None
  summary = report['shown']
  return '\n'.join(summary['text']), [*(workdir / name for name in summary['files']), path]


def describe_result(config: Mapping[str, Any], workdir: str | os.PathLike[str]) -> str:
  """Returns the text that a finished run or recipe prints.

  A recipe that ends with samples prints their scores with intervals, their files and a command to
  make more. Every run with TensorBoard logs prints the command to show them.
  """
  workdir = pathlib.Path(workdir)
  lines = []
  stage = config['stages'][config['order'][-1]] if 'stages' in config else {}
  report = earlier_report(workdir, _about(stage, workdir)) if 'judge' in stage else None
  if report is not None:
    text, paths = report
    record = open_checkpoints(workdir / stage['of']).newest_record() or {'meta': {'notes': {}}}
    words = describe_words(words_in(record['meta']['notes']))
    lines += ['', text, '', *map(str, paths), *(['', *textwrap.wrap(words, 100)] if words else [])]
    lines += ['', 'Make your own:', _command(stage, workdir, paths)]
  if [*workdir.glob('tensorboard'), *workdir.glob('*/tensorboard')]:
    lines += ['', 'Curves and samples of training (pip install tensorboard):']
    lines.append(shlex.join(['tensorboard', f'--logdir={workdir}']))
  return '\n'.join([*lines, ''])


def _command(stage: Mapping[str, Any], workdir: pathlib.Path, paths: list[pathlib.Path]) -> str:
  """Returns a command that also works if the virtual environment is not activated."""
  python = os.path.relpath(sys.executable)
  python = sys.executable if python.startswith('..') else python
  words = _judge_of(stage['judge']).words(workdir, paths)
  model = workdir / stage['of']
  task = find_component(read_config(model).component).sample_command
  arguments = [task, f'--workdir={model}', *words, '--out=out.mp4']
  return shlex.join([python, '-m', 'launch.sample', *arguments])
