"""Votes become pairs of latents, and training from them moves a model towards what was chosen."""

import json

import numpy as np
import pytest

from mgjax.api import load, train
from mgjax.apps.pairs.preferences import Preferences, _Maker, prefer, read_rows
from mgjax.core.errors import ConfigError, DataError
from mgjax.data.media.viewing import write_clip
from mgjax.data.records.reader import Records
from mgjax.lab.worlds.judging import Asked
from tests import tiny

pytestmark = pytest.mark.usefixtures('on_one_device')


def configured(runs, tmp_path, **changes):
  config = tiny.video(
    runs,
    start_from=str(runs / 'video'),
    data__latents=str(tmp_path / 'pairs'),
    objective__dropout={'text': 0.1, 'rejected': 0.0},
    **changes,
  )
  config.model.conditionings.rejected = {'kind': 'rejected'}
  config.objective.preference = {'beta': 100.0, 'supervised': 0.1}
  config.preferences = {'model': '', 'votes': str(tmp_path / 'votes.jsonl')}
  return config


@pytest.fixture(scope='module')
def voted(tiny_runs, tmp_path_factory):
  """Votes for bright clips over dark ones, and the pairs of them."""
  folder = tmp_path_factory.mktemp('votes')
  rng, lines = np.random.default_rng(0), []
  for index in range(72):
    for name, low in (('bright', 150), ('dark', 0)):
      clip = rng.integers(low, low + 100, (4, 16, 16, 3), dtype=np.uint8)
      write_clip(folder / f'{name}{index}.mp4', clip, 8, scale=1)
    lines.append(
      {'prompt': 'a red 3', 'chosen': f'bright{index}.mp4', 'rejected': f'dark{index}.mp4'}
    )
  (folder / 'votes.jsonl').write_text('\n'.join(map(json.dumps, lines)))
  config = configured(tiny_runs, folder)
  return folder, prefer(config.to_dict(), folder / 'pairs', batch_size=8)


def test_votes_of_people_become_pairs_of_latents(tiny_runs, voted):
  folder, found = voted
  assert {name: result.kept for name, result in found.items()} == {
    'train/video': 64,
    'validation/video': 8,
  }
  records = Records(folder / 'pairs' / 'train' / 'video')
  codec = load(tiny_runs / 'autoencoder')
  for row in (0, 63):
    chosen, rejected = (
      np.asarray(codec.decode(np.asarray(records[row][name], np.float32)[None]), float).mean()
      for name in ('latents', 'rejected')
    )
    assert chosen > rejected + 5
  assert (folder / 'pairs' / 'train' / 'video' / 'pairs.html').exists()
  again = prefer(configured(tiny_runs, folder).to_dict(), folder / 'pairs', batch_size=8)
  assert again == found
  votes = folder / 'votes.jsonl'
  text = votes.read_text()
  votes.write_text('\n'.join(reversed(text.splitlines())))
  with pytest.raises(ConfigError, match='pairs'):
    prefer(configured(tiny_runs, folder).to_dict(), folder / 'pairs', batch_size=8)
  votes.write_text(text)


@pytest.mark.parametrize('rank', [0, 4])
def test_training_from_votes_moves_towards_what_was_chosen(tiny_runs, voted, tmp_path, rank):
  folder, _ = voted
  config = configured(
    tiny_runs,
    folder,
    lora__rank=rank,
    optimizer__learning_rate=0.02,
    train__steps=24,
    train__log_every=1,
  )
  train(config, tmp_path)
  rows = [row for row in tiny.metrics(tmp_path) if 'accuracy' in row]
  assert rows[0]['margin'] == pytest.approx(0, abs=1e-6)  # the model is the reference
  assert np.mean([row['accuracy'] for row in rows[-8:]]) > 0.9
  validated = [row for row in tiny.metrics(tmp_path) if 'validation/video/accuracy' in row]
  assert validated[-1]['validation/video/margin'] > 0
  # It is sampled as any model, and makes brighter clips than before.
  made, before = (
    load(where).generate(['a red 3'] * 4, seed=0).mean()
    for where in (tmp_path, tiny_runs / 'video')
  )
  assert made > before


class Judge:
  """Finds the first samples of two prompts better by 0.57 - 0.56, and by 0.57 - 0.57."""

  def __init__(self):
    self.answers = iter([{'colour': np.array([0.57, 0.57])}, {'colour': np.array([0.56, 0.57])}])

  def right(self, videos, asked):
    return next(self.answers)


def test_a_margin_of_the_least_that_counts_is_kept(tiny_runs):
  """0.57 - 0.56 is less than 0.01 in floating point."""
  settings = Preferences(model=str(tiny_runs / 'video'), least=0.01)
  maker = _Maker(settings, Judge(), load(tiny_runs / 'autoencoder'), np.float32, 2)
  asked = {'asked': Asked('a red 3', {})}
  pairs = [pair for row in maker.make([0, 1], [asked, asked]) for pair in row]
  assert [pair.reason for pair in pairs] == ['', 'as good as each other']
  assert pairs[0].scores == {'chosen': 0.57, 'rejected': 0.56}


def test_what_is_no_vote_or_no_pair_is_refused(tiny_runs, tmp_path):
  path = tmp_path / 'votes.jsonl'
  path.write_text('{"prompt": "a", "chosen": "a.mp4"}\n')
  with pytest.raises(DataError, match=r'line 1: .*expected {"prompt"'):
    read_rows(path)
  path.write_text('{"prompt": ["a"], "chosen": "a.mp4", "rejected": "b.mp4"}\n')
  with pytest.raises(DataError, match=r'line 1: .*expected {"prompt"'):
    read_rows(path)
  path.write_text('')
  with pytest.raises(DataError, match='has no votes'):
    read_rows(path)
  config = configured(tiny_runs, tmp_path)
  config.preferences.model = 'digits/video'
  with pytest.raises(ConfigError, match='expected a model whose samples a judge compares, or'):
    prefer(config.to_dict(), tmp_path / 'pairs')
  config = configured(tiny_runs, tmp_path)
  del config.model.conditionings['rejected']
  config.objective.dropout = {'text': 0.1}
  with pytest.raises(ConfigError, match='batches have no sample that lost'):
    train(config, tmp_path / 'run')
