"""A video model that learns to be guided in one pass, from its configuration to its videos."""

import numpy as np
import pytest

from configs.base import distilled_guidance
from mgjax.api import train
from mgjax.checkpoints.workdir import load_params
from mgjax.core.errors import ConfigError
from mgjax.editing.pipeline import Editor
from mgjax.video.pipeline import VideoPipeline
from tests import tiny

PROMPTS, SHAPE = ['the red digit 7 moves up'], (4, 16, 16)


def student(runs, **changes):
  config = tiny.video(runs, train__steps=4, train__save_every=2)
  config = distilled_guidance(config, str(runs / 'video'), highest=5.0)
  config.update_from_flattened_dict(tiny.dotted(changes))
  return config


@pytest.fixture(scope='module')
def learnt(tiny_runs, tmp_path_factory):
  workdir = tmp_path_factory.mktemp('guidance')
  train(student(tiny_runs), workdir)
  return workdir


def test_it_trains_and_samples_at_the_scales_that_it_learnt(learnt, tiny_runs):
  params, _ = load_params(learnt)
  assert np.any(params['guidance_scale']['out']['kernel'])
  assert 'guidance_scale' not in load_params(tiny_runs / 'video')[0]
  videos = [
    VideoPipeline(learnt, guidance={'text': scale}).generate(PROMPTS, shape=SHAPE)
    for scale in (1.0, 3.0, 5.0)
  ]
  assert all(video.shape == (1, *SHAPE, 3) for video in videos)
  assert np.any(videos[0] != videos[1]) and np.any(videos[1] != videos[2])


def test_what_it_did_not_learn_is_one_sentence(learnt):
  with pytest.raises(ConfigError, match=r"'text' is 6.0 of a model that learnt scales from 1 to 5"):
    VideoPipeline(learnt, guidance={'text': 6.0})
  with pytest.raises(ConfigError, match="negative = 'blur', and no guidance that could lead"):
    VideoPipeline(learnt, guidance=3).generate(PROMPTS, shape=SHAPE, negative='blur')
  with pytest.raises(ConfigError, match='learnt from a teacher'):
    Editor(learnt)


def test_a_run_that_goes_on_learns_what_an_undisturbed_one_does(learnt, tiny_runs, tmp_path):
  train(student(tiny_runs), tmp_path, stop_at=2)
  train(student(tiny_runs), tmp_path)
  assert tiny.losses(tmp_path) == tiny.losses(learnt)


def test_devices_that_share_rows_or_tokens_learn_the_same(learnt, tiny_runs, tmp_path):
  train(student(tiny_runs, mesh__data=4, mesh__context=2, rules='fsdp_cp'), tmp_path)
  alone, shared = (
    [row['loss'] for row in tiny.metrics(workdir) if 'loss' in row]
    for workdir in (learnt, tmp_path)
  )
  # Four updates by gradients that differ by rounding, in steps of Adam of 1e-3.
  np.testing.assert_allclose(shared, alone, rtol=1e-4)


def test_a_model_that_cannot_be_told_is_one_sentence(tiny_runs, tmp_path):
  config = student(tiny_runs)
  del config.model.conditionings.guidance_scale, config.objective.dropout.guidance_scale
  with pytest.raises(ConfigError, match="'kind': 'guidance_scale'"):
    train(config, tmp_path)
