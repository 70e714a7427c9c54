"""A video model that learns to sample in few steps, from its configuration to its videos."""

import numpy as np
import pytest

from mgjax.api import train
from mgjax.checkpoints.workdir import load_params
from mgjax.core.errors import CheckpointError, ConfigError
from mgjax.video.pipeline import VideoPipeline
from tests import tiny


def few_steps(runs, **changes):
  return tiny.student(runs, 'few_steps', 8, train__steps=3, **changes)


@pytest.fixture(scope='module')
def learnt(tiny_runs, tmp_path_factory):
  workdir = tmp_path_factory.mktemp('few_steps')
  train(few_steps(tiny_runs), workdir)
  return workdir


def test_it_trains_and_samples_in_the_steps_that_it_learnt(learnt):
  first = tiny.metrics(learnt)[0]
  assert first['loss/own_steps'] > 0 and first['loss/teachers_steps'] > 0
  videos = [
    VideoPipeline(learnt, steps=steps).generate(['the red digit 7 moves up'], shape=(4, 16, 16))
    for steps in (1, 2, 4)
  ]
  assert all(video.shape == (1, 4, 16, 16, 3) for video in videos)
  with pytest.raises(ConfigError, match='8 steps of a model that learnt to take 1, 2, 4'):
    VideoPipeline(learnt, steps=8)
  with pytest.raises(ConfigError, match='learnt its few steps with'):
    VideoPipeline(learnt, guidance=3)


def test_devices_that_share_rows_or_tokens_learn_the_same(learnt, tiny_runs, tmp_path):
  train(few_steps(tiny_runs, mesh__data=4, mesh__context=2, rules='fsdp_cp'), tmp_path)
  alone, shared = (
    [row['loss'] for row in tiny.metrics(workdir) if 'loss' in row]
    for workdir in (learnt, tmp_path)
  )
  # Three updates by gradients that differ by rounding, in steps of Adam of 1e-3.
  np.testing.assert_allclose(shared, alone, rtol=1e-4)


def test_a_teacher_that_is_not_there_is_one_sentence(tiny_runs, tmp_path):
  config = few_steps(tiny_runs)
  config.objective.few_steps.teacher = str(tmp_path / 'nobody')
  with pytest.raises(CheckpointError, match=r'no checkpoint in .*nobody'):
    train(config, tmp_path)


def test_the_teacher_stays_as_it_was(learnt, tiny_runs):
  before, _ = load_params(tiny_runs / 'video')
  after, _ = load_params(learnt, 'params')
  assert not np.array_equal(
    before['backbone']['patch_out']['kernel'], after['backbone']['patch_out']['kernel']
  )
  assert 'step_size' in after and 'step_size' not in before
