"""What a configuration of a video model must agree with, and what it may start from."""

import jax
import numpy as np
import pytest

from mgjax.api import train
from mgjax.core.errors import ConfigError, DataError
from mgjax.registry import make_spec
from mgjax.training.checkpoints.load_params import load_params
from tests import tiny


def test_dropout_under_another_name_is_refused(tiny_runs, tmp_path):
  config = tiny.video(tiny_runs)
  for dropout in ({'texts': 0.1}, {}, {'text': 0.1, 'face': 0.1}):
    config.objective.dropout = dropout
    with pytest.raises(ConfigError, match=r"the conditionings are \['text'\]"):
      make_spec(config, tmp_path)


def test_any_bucket_that_the_model_cannot_see_is_refused_before_training(tiny_runs, tmp_path):
  config = tiny.video(tiny_runs, latents=False, images=True, buckets__image__height=24)
  with pytest.raises(ConfigError, match='cannot make 1 frames of 24 x 16'):
    make_spec(config, tmp_path)


def test_latents_of_another_shape_or_frame_rate_are_refused(tiny_runs, tmp_path):
  for changes in ({'buckets__video__frames': 2}, {'data__fps': 16}):
    with pytest.raises(DataError, match='encode the data again'):
      make_spec(tiny.video(tiny_runs, **changes), tmp_path)


def test_a_model_with_one_more_conditioning_starts_from_one_without(tiny_runs, tmp_path):
  config = tiny.video(tiny_runs, start_from=str(tiny_runs / 'video'))
  config.model.conditionings.more = config.model.conditionings.text.copy_and_resolve_references()
  config.objective.dropout.more = 0.1
  state = train(config, tmp_path, stop_at=0)
  start, _ = load_params(tiny_runs / 'video')
  assert set(state.params) == {*start, 'more'}
  kept = {name: state.params[name] for name in start}
  assert jax.tree.all(jax.tree.map(np.array_equal, kept, start))
