"""Pairs that an editor makes of real clips: what stands in a row, what is dropped and why."""

import dataclasses
import functools
import json
import os
import pathlib

import numpy as np
import pytest

from mgjax.api import train
from mgjax.apps.encode import encode
from mgjax.apps.pairs import backtranslation
from mgjax.apps.pairs.backtranslation import backtranslate
from mgjax.apps.pairs.make_pairs import PAGE
from mgjax.core.errors import ConfigError, DataError
from mgjax.core.settings import fields_of
from mgjax.data.media.video import write_video
from mgjax.data.records.reader import Records
from mgjax.data.records.writer import Share
from mgjax.data.settings import data_settings, video_shapes
from mgjax.data.sources import latent_sources, make_world
from mgjax.lab.worlds.digits.clips import Digits
from mgjax.lab.worlds.digits.edits import TASKS
from mgjax.sections.autoencoder.pipeline import load_codec
from mgjax.sections.editing.instructions import guess_task
from mgjax.sections.editing.pipeline import Editor
from mgjax.training.monitoring.workdir_lock import hold
from tests import tiny, tiny_editing, tiny_text
from tests.folders import files_of
from tests.lab.language_models.chat_server import Server
from tests.tiny_editing import SIDE, WINDOW
from tests.tiny_personalization import make_recogniser

CLIPS, VALIDATION = 12, 8
SIZES = {'batch_size': 4, 'samples_per_shard': 4}


def pairs_of(directory):
  """All that pairs left behind, but for the locks of folders."""
  return files_of(directory, kept=lambda path: path.suffix != '.lock')


@pytest.fixture(scope='module', autouse=True)
def loaded_once():
  """Programs are compiled once for all calls."""
  with pytest.MonkeyPatch.context() as patch:
    for name in ('Editor', 'Clip', 'load_codec'):
      patch.setattr(backtranslation, name, functools.cache(getattr(backtranslation, name)))
    yield


@dataclasses.dataclass(frozen=True)
class Made:
  """The models, the configuration by which pairs were made of them, and those."""

  runs: pathlib.Path
  recogniser: pathlib.Path
  directory: pathlib.Path
  results: dict

  def config(self, **changes):
    return tiny_editing.backtranslation(self.runs, self.recogniser, **changes)


@pytest.fixture(scope='module')
def made(tiny_editing_runs, tmp_path_factory):
  place = tmp_path_factory.mktemp('backtranslation')
  recogniser = make_recogniser(place / 'clip')
  config = tiny_editing.backtranslation(tiny_editing_runs, recogniser)
  results = backtranslate(config.to_dict(), place / 'pairs', **SIZES)
  return Made(tiny_editing_runs, recogniser, place / 'pairs', results)


def rows_of(directory, split='train', bucket='backtranslated'):
  return list(Records(directory / split / bucket))


def world_of(config, split='train'):
  data = data_settings(config.data.to_dict())
  return make_world(data, split, frames=WINDOW, size=(SIDE, SIDE))


@pytest.mark.slow
def test_training_goes_on_from_the_pairs_of_the_third_stage(made, tmp_path):
  config = made.config(data__latents=str(made.directory), train__steps=4)
  assert int(train(config, tmp_path / 'run').step) == 4
  last = tiny.losses(tmp_path / 'run')[4]
  assert any(name.startswith('validation/') and 'backtranslated' in name for name in last)
  assert set(made.results) == {'train/backtranslated', 'validation/backtranslated'}
  assert [each.rows for each in made.results.values()] == [CLIPS, VALIDATION]


@pytest.mark.slow
def test_a_model_that_reads_frozen_encoders_finds_the_embeddings_of_what_undoes_edits(
  made, tmp_path
):
  encoders = tiny_text.make_encoders(tmp_path / 'encoders')
  config = made.config(data__latents=str(tmp_path / 'pairs'), train__steps=3)
  reads = tiny_text.video(made.runs, encoders)
  config.model.conditionings.text = reads.model.conditionings.text
  config.text, config.embeddings, config.start_from = reads.text, '', ''
  backtranslate(config.to_dict(), tmp_path / 'pairs', **SIZES)
  assert int(train(config, tmp_path / 'run').step) == 3


def test_a_row_leads_from_the_edited_clip_to_the_real_one(made, tmp_path):
  config = made.config()
  world, rows = world_of(config), rows_of(made.directory)
  asked = [world.edit(world.scene(index)) for index in range(CLIPS)]
  editor, codec = Editor(made.runs / 'editing'), load_codec(config.autoencoder)
  for first in range(0, CLIPS, 4):
    forward = [edit.undone for edit in asked[first : first + 4]]
    edited = editor.generate(
      [edit.instruction for edit in forward],
      task=[edit.task for edit in forward],
      video=[world[first + row]['video'] for row in range(4)],
      first=first,
    )
    latents = np.asarray(codec.encode(edited), np.float32)
    for row, latent in zip(rows[first : first + 4], latents, strict=True):
      np.testing.assert_array_equal(row['source_video'], latent.astype(row['source_video'].dtype))
  for row, edit in zip(rows, asked, strict=True):
    assert (row['caption'], row['task'], row['fps']) == (edit.instruction, edit.task, 8)
    assert guess_task(row['caption'], TASKS) == row['task']
  # The real side is what launch.data encode stores of the same clips, in fields and in bits.
  config.encode.train, config.encode.validation = CLIPS, VALIDATION
  assert encode(config, tmp_path)
  for row, stored in zip(rows, rows_of(tmp_path), strict=True):
    assert row.keys() == stored.keys()
    assert {name: type(value) for name, value in row.items()} == {
      name: type(value) for name, value in stored.items()
    }
    assert (row['caption'], row['text_key']) == (stored['caption'], stored['text_key'])
    np.testing.assert_array_equal(row['latents'], stored['latents'])


def test_training_on_its_own_edits_is_the_same_pairs_the_other_way_round(made, tmp_path):
  config = made.config(backtranslation__own_edits=True)
  backtranslate(config.to_dict(), tmp_path, **SIZES)
  world = world_of(config)
  for index, (own, turned) in enumerate(
    zip(rows_of(tmp_path), rows_of(made.directory), strict=True)
  ):
    np.testing.assert_array_equal(own['latents'], turned['source_video'])
    np.testing.assert_array_equal(own['source_video'], turned['latents'])
    forward = world.edit(world.scene(index)).undone
    assert (own['caption'], own['task']) == (forward.instruction, forward.task)


def test_noise_of_its_deviation_lies_on_the_edited_side_alone(made, tmp_path):
  config = made.config(backtranslation__noise=0.5, encode__dtype='float32')
  backtranslate(config.to_dict(), tmp_path / 'noised', **SIZES)
  backtranslate(made.config(encode__dtype='float32').to_dict(), tmp_path / 'plain', **SIZES)
  noised, plain = rows_of(tmp_path / 'noised'), rows_of(tmp_path / 'plain')
  for first, second in zip(noised, plain, strict=True):
    np.testing.assert_array_equal(first['latents'], second['latents'])
  noise = np.stack(
    [
      first['source_video'] - second['source_video']
      for first, second in zip(noised, plain, strict=True)
    ]
  )
  # Four standard errors of a deviation, 1 / sqrt(2 n), and of a mean, 1 / sqrt(n).
  assert abs(noise.std() / 0.5 - 1) < 4 / np.sqrt(2 * noise.size)
  assert abs(noise.mean() / 0.5) < 4 / np.sqrt(noise.size)
  assert len({each.tobytes() for each in noise}) == CLIPS


def test_the_clip_before_the_edit_is_never_looked_at(made, tmp_path, monkeypatch):
  show = Digits.show

  def without_source(self, scene):
    return show(self, scene) | {'source_video': None}

  monkeypatch.setattr(Digits, 'show', without_source)
  backtranslate(made.config().to_dict(), tmp_path / 'pairs', **SIZES)
  assert pairs_of(tmp_path / 'pairs') == pairs_of(made.directory)


def test_thresholds_drop_pairs_and_say_why(made, tmp_path):
  for name, reason in (('direction', 'not as instructed'), ('structure', 'another scene')):
    scores = [each[name] for each in scores_of(made.directory)]
    middle = sorted(scores)[CLIPS // 2]  # as a reader of the manifest would choose it
    kept = [score >= middle for score in scores]
    assert 0 < sum(kept) < CLIPS
    config = made.config(**{f'backtranslation__{name}': middle}, backtranslation__clips=CLIPS)
    results = backtranslate(config.to_dict(), tmp_path / name, **SIZES)
    found = results['train/backtranslated']
    assert (found.kept, found.reasons) == (sum(kept), {reason: CLIPS - sum(kept)})
    page = (tmp_path / name / 'train' / 'backtranslated' / PAGE).read_text()
    assert reason in page
    rows = rows_of(made.directory)
    expected = [row['latents'].tobytes() for row, keep in zip(rows, kept, strict=True) if keep]
    assert [row['latents'].tobytes() for row in rows_of(tmp_path / name)] == expected


def test_a_score_that_is_written_as_the_threshold_reaches_it(made, tmp_path, monkeypatch):
  """Whichever way the machine rounds, the manifest shows what was compared."""
  scores = {'direction': 0.49996, 'structure': 0.49996}
  monkeypatch.setattr(backtranslation, '_scores', lambda *_: scores)
  config = made.config(backtranslation__direction=0.5, backtranslation__structure=0.5)
  results = backtranslate(config.to_dict(), tmp_path, **SIZES)
  assert results['train/backtranslated'].kept == CLIPS
  assert scores_of(tmp_path)[0] == {'direction': 0.5, 'structure': 0.5}


def scores_of(directory, split='train'):
  manifest = json.loads((directory / split / 'backtranslated' / 'manifest.json').read_text())
  return [note['scores'] for shard in manifest['shards'] for note in shard['notes']]


def test_no_pair_is_an_error_that_says_what_to_do_and_an_empty_bucket_is_left_out(made, tmp_path):
  with pytest.raises(
    DataError, match=r'0 of 12 pairs kept; 12 dropped, another scene.*lower backtranslation\.dir'
  ):
    backtranslate(made.config(backtranslation__structure=1.0).to_dict(), tmp_path / 'none', **SIZES)
  assert (tmp_path / 'none' / 'train' / 'backtranslated' / PAGE).exists()
  config = made.config(backtranslation__structure=0.99, backtranslation__clips=4)
  config.buckets.still = {**config.buckets.backtranslated.to_dict(), 'frames': 2}
  real = backtranslation._scores

  def scores(clip, instruction, before, after):
    return real(clip, instruction, before, after) | {'structure': float(len(before) == WINDOW)}

  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(backtranslation, '_scores', scores)
    results = backtranslate(config.to_dict(), tmp_path / 'one', **SIZES)
  assert [results[f'train/{name}'].rows for name in ('backtranslated', 'still')] == [4, 0]
  fields = data_settings(config.data.to_dict() | {'latents': str(tmp_path / 'one')})
  shapes = video_shapes(fields_of(config, 'buckets'), 8)
  for split in ('train', 'validation'):
    assert list(latent_sources(fields, shapes, split)) == ['backtranslated']


# The writer of instructions: a server.
EDIT = {'task': 'recolour', 'instruction': 'make it red', 'reverse': 'make it blue'}
EDIT |= {'target': 'the red digit moves'}


@pytest.fixture
def clips(tmp_path):
  """A folder of clips with captions."""
  folder = tmp_path / 'clips'
  folder.mkdir()
  world = Digits(frames=WINDOW, size=(SIDE, SIDE))
  for number in range(3):
    write_video(folder / f'{number}.mp4', world[number]['video'], 8)
    (folder / f'{number}.txt').write_text(f'clip {number}')
  return folder


def written(made, server, clips, **changes):
  """The configuration of pairs of a folder of clips, whose instructions a server writes."""
  config = made.config(data__kind='clips', data__path=str(clips), **changes)
  config.backtranslation.tasks = ('recolour', 'remove')
  config.backtranslation.writer = {
    'model': 'tiny',
    'url': server.url,
    'first_pause': 0.001,
    'tries': 2,
    'attempts': 1,
  }
  return config


def test_instructions_come_from_a_server_and_are_asked_for_once(made, clips, tmp_path):
  said = {}

  def answer(text):
    number = next(number for number in '012' if f'clip {number}' in text)
    said[number] = said.get(number, 0) + 1
    if number == '1' and said[number] <= 2:
      # Of clip 1 the first answers do not fit, in every split.
      return 'that is no JSON' if said[number] == 1 else json.dumps(EDIT)
    return 'nor is this' if number == '2' else json.dumps(EDIT | {'task': 'remove'})

  with Server(answer) as server:
    config = written(made, server, clips)
    results = backtranslate(config.to_dict(), tmp_path / 'pairs', **SIZES)
    found = results['train/backtranslated']
    assert (found.kept, found.reasons) == (2, {'no instruction': 1})
    asked = {text: len(each) for text, each in server.requests.items()}
    assert asked
    backtranslate(config.to_dict(), tmp_path / 'pairs', **SIZES)
    assert {text: len(each) for text, each in server.requests.items()} == asked
  rows = rows_of(tmp_path / 'pairs')
  assert [row['caption'] for row in rows] == ['make it blue'] * 2
  assert [row['task'] for row in rows] == ['add', 'recolour']
  assert [os.path.basename(row['source']) for row in rows] == ['0.mp4', '1.mp4']
  # Where the server is does not count, which model it has does.
  with Server(answer) as server:
    assert (
      backtranslate(written(made, server, clips).to_dict(), tmp_path / 'pairs', **SIZES) == results
    )
    other = written(made, server, clips)
    other.backtranslation.writer.model = 'large'
    with pytest.raises(ConfigError, match=r'was begun with other values.*large'):
      backtranslate(other.to_dict(), tmp_path / 'pairs', **SIZES)
    assert not server.requests


def test_two_processes_ask_one_server_at_once(made, clips, tmp_path):
  """Neither waits for the folder of answers of the other."""
  sizes = {'batch_size': 1, 'samples_per_shard': 1}
  with Server(lambda text: json.dumps(EDIT)) as server:
    config = written(made, server, clips)
    answers = tmp_path / 'pairs' / 'answers' / 'train' / 'backtranslated'
    with hold(answers / '00000'):  # as if process 0 asked now
      first = backtranslate(config.to_dict(), tmp_path / 'pairs', **sizes, share=Share(1, 2))
    assert not first['train/backtranslated'].finished
    last = backtranslate(config.to_dict(), tmp_path / 'pairs', **sizes, share=Share(0, 2))
    assert last['train/backtranslated'].kept == 3
    assert all(len(each) <= 2 for each in server.requests.values())  # once a split
