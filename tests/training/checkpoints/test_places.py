"""Checkpoints that lie elsewhere than in the work directory of their run."""

import importlib.util
import json
import os

import pytest

from mgjax.api import train
from mgjax.core.errors import CheckpointError, ConfigError
from mgjax.training import run
from mgjax.training.checkpoints.manager import Checkpoints
from mgjax.training.checkpoints.orbax_io import Keep
from mgjax.training.checkpoints.workdir import open_checkpoints
from tests import tiny
from tests.training.checkpoints.test_manager import assert_same, make_abstract, make_state


def begin(workdir, **train):
  workdir.mkdir()
  (workdir / 'config.json').write_text(json.dumps({'component': 'video', 'train': train}))


def test_a_run_says_where_its_checkpoints_are(tmp_path):
  workdir = tmp_path / 'run'
  assert os.fspath(open_checkpoints(workdir).directory) == f'{workdir}/checkpoints'
  begin(tmp_path / 'old', keep=3)  # a configuration of before there was the field
  assert os.fspath(open_checkpoints(tmp_path / 'old').directory) == f'{tmp_path}/old/checkpoints'
  begin(workdir, checkpoints='/elsewhere/run')
  assert os.fspath(open_checkpoints(workdir).directory) == '/elsewhere/run'
  for place, expected in (
    ('', f'{workdir}/checkpoints'),
    ('gs://bucket/run', 'gs://bucket/run'),
    ('s3://bucket/run', 's3://bucket/run'),
  ):
    found = open_checkpoints(workdir, place, Keep(2))
    assert os.fspath(found.directory) == expected
  with pytest.raises(ConfigError, match=r"'nearby' is a relative path; give an absolute"):
    open_checkpoints(workdir, 'nearby')


def test_states_are_saved_there_and_found_again(tmp_path):
  workdir, place = tmp_path / 'run', tmp_path / 'far' / 'away'
  begin(workdir, checkpoints=str(place))
  state = make_state(3)
  with open_checkpoints(workdir) as checkpoints:
    assert not checkpoints.begun()
    checkpoints.save(state, {'note': 1})
  assert (place / '3').is_dir()
  assert not (workdir / 'checkpoints').exists()
  with open_checkpoints(workdir) as checkpoints:
    assert checkpoints.begun()
    restored, meta = checkpoints.restore(make_abstract(state))
  assert meta == {'note': 1}
  assert_same(restored, state)


@pytest.mark.skipif(importlib.util.find_spec('gcsfs') is not None, reason='gcsfs is installed')
def test_without_a_way_to_a_url_nothing_passes_for_an_empty_directory():
  checkpoints = Checkpoints('gs://bucket/run')
  for ask in (checkpoints.begun, checkpoints.steps, lambda: checkpoints.restore(make_state(0))):
    with pytest.raises(CheckpointError, match=r'gs://bucket/run .*pip install mgjax\[gcs\]'):
      ask()


@pytest.mark.slow
def test_a_lost_work_directory_is_replaced_and_another_run_is_kept_out(tmp_path):
  place = str(tmp_path / 'bucket')
  config = tiny.autoencoder(train__checkpoints=place)
  first = train(config, tmp_path / 'lost', stop_at=1)
  again = train(config, tmp_path / 'new', stop_at=1)
  tiny.same_state(tiny.bits(first), tiny.bits(again))
  assert open_checkpoints(tmp_path / 'new').steps() == [1]
  other = tiny.autoencoder(train__checkpoints=place, seed=config.seed + 1)
  with pytest.raises(ConfigError, match=rf'bucket.*another configuration: seed: {config.seed} ->'):
    train(other, tmp_path / 'other')
  with pytest.raises(ConfigError, match=r'another configuration: train\.checkpoints'):
    train(tiny.autoencoder(), tmp_path / 'lost')


def test_a_run_whose_checkpoints_are_gone_does_not_begin_again_silently(tmp_path, monkeypatch):
  def begin(*_):
    raise InterruptedError('it begins')

  monkeypatch.setattr(run, '_new_state', begin)
  config = tiny.autoencoder(train__save_every=2)
  (tmp_path / 'metrics.jsonl').write_text('{"step": 5, "loss": 1.0}\n')
  said = r'have reached step 5, but .*checkpoints has no checkpoint after step 0; bring them back'
  with pytest.raises(CheckpointError, match=said):
    train(config, tmp_path)
  with pytest.raises(CheckpointError, match=said):  # nor with another configuration
    train(tiny.autoencoder(train__save_every=1), tmp_path)
  # Nothing need have been saved before two saves were due.
  (tmp_path / 'metrics.jsonl').write_text('{"step": 4, "loss": 1.0}\n{"step": 5, "lo')
  with pytest.raises(InterruptedError):
    train(config, tmp_path)
  (tmp_path / 'metrics.jsonl').write_text('{"step": 5, "loss": 1.0}\n')
  with pytest.raises(InterruptedError):
    train(tiny.autoencoder(train__save_every=3), tmp_path)
