"""A video model that learns few steps against a critic, from its configuration to its videos."""

import numpy as np
import pytest

from mgjax.api import train
from mgjax.checkpoints.workdir import load_params
from mgjax.core.errors import ConfigError
from mgjax.video.pipeline import VideoPipeline
from tests import tiny

RATE = 1e-3


def matching(runs, **changes):
  changes = {'train__steps': 4, 'train__save_every': 2, 'optimizer__learning_rate': RATE} | changes
  config = tiny.student(runs, 'distribution_matching', (1, 2), **changes)
  config.discriminator = {'optimizer': config.optimizer.to_dict(), 'start': 0}
  return config


@pytest.fixture(scope='module')
def learnt(tiny_runs, tmp_path_factory):
  """The work directory and the final state."""
  workdir = tmp_path_factory.mktemp('matching')
  return workdir, train(matching(tiny_runs), workdir)


def losses(workdir):
  return [row for row in tiny.metrics(workdir) if 'discriminator_loss' in row]


def test_it_trains_and_samples_in_the_steps_that_it_learnt(learnt):
  workdir, _ = learnt
  for row in losses(workdir):
    assert row['loss'] > 0 and row['discriminator_loss'] > 0
  for steps in (1, 2):
    pipeline = VideoPipeline(workdir, steps=steps)
    videos = pipeline.generate(['the red digit 7 moves up'], shape=(4, 16, 16))
    assert videos.shape == (1, 4, 16, 16, 3)
  with pytest.raises(ConfigError, match='4 steps of a model that learnt to take 1, 2; take one'):
    VideoPipeline(workdir, steps=4)


def test_both_players_begin_as_the_teacher(learnt, tiny_runs):
  _, state = learnt
  before, _ = load_params(tiny_runs / 'video')
  for player in (state.params, state.discriminator['params']):
    moved = np.abs(
      player['backbone']['patch_out']['kernel'] - before['backbone']['patch_out']['kernel']
    )
    # Four steps of Adam, each of at most the learning rate or somewhat more, but for the decay.
    assert 0 < np.max(moved) < 4 * 2 * RATE


def test_a_run_that_is_resumed_is_an_undisturbed_one(learnt, tiny_runs, tmp_path):
  train(matching(tiny_runs), tmp_path, stop_at=2)
  assert tiny.same_state(train(matching(tiny_runs), tmp_path), learnt[1])


def test_devices_that_share_rows_or_tokens_learn_the_same(learnt, tiny_runs, tmp_path):
  train(matching(tiny_runs, mesh__data=4, mesh__context=2, rules='fsdp_cp'), tmp_path)
  for name in ('loss', 'discriminator_loss'):
    alone, shared = ([row[name] for row in losses(workdir)] for workdir in (learnt[0], tmp_path))
    # Four updates by gradients that differ by rounding, in steps of Adam of 1e-3.
    np.testing.assert_allclose(shared, alone, rtol=1e-4)


def test_what_cannot_be_is_one_sentence(tiny_runs, tmp_path):
  config = matching(tiny_runs)
  config.discriminator.widths = (16,)
  with pytest.raises(ConfigError, match=r"\['widths'\]; the critic is a network as its teacher"):
    train(config, tmp_path)
  config = matching(tiny_runs)
  del config['discriminator']
  with pytest.raises(ConfigError, match="the configuration has nothing as 'discriminator'"):
    train(config, tmp_path)
  config = matching(tiny_runs)
  config.objective.few_steps = config.objective.distribution_matching.to_dict() | {'steps': 8}
  with pytest.raises(ConfigError, match='one model learns one of them'):
    train(config, tmp_path)
