"""Stages tell which one it is and guess what is left of all, from what earlier ones took."""

import logging

import pytest

from configs.digits import audio, autoencoder, codec, video
from mgjax.runtime import progress
from mgjax.workflows.stages import ENCODE, Stages, usual_seconds


def left_in(stages, name, seconds):
  """What a stage would show as the time left of all."""
  return stages.run(name, lambda: progress._STAGE.get().left(seconds))


def test_what_is_left_follows_from_what_stages_took_and_usually_take(tmp_path, caplog):
  caplog.set_level(logging.INFO, 'mgjax')
  stages = Stages(tmp_path, {'codec': 10.0, 'latents': 1.0, 'model': 20.0})
  assert left_in(stages, 'codec', None) is None  # nothing tells yet how fast this machine is
  assert left_in(stages, 'codec', 30.0) == pytest.approx(30 + 63, abs=1)
  stages.seconds['codec'] = 30.0  # three times what is usual
  assert left_in(stages, 'latents', None) == pytest.approx(3 + 60, abs=1)
  stages.seconds['latents'] = 3.0
  assert left_in(stages, 'model', 7.0) == 7.0
  assert 'stage 3 of 3: model, all in about 60 s' in caplog.text
  assert Stages(tmp_path, {'codec': 10.0}).seconds.keys() == {'codec', 'latents', 'model'}


def test_nothing_is_guessed_of_a_stage_like_which_none_was_measured(tmp_path):
  stages = Stages(tmp_path, {'codec': 10.0, 'other': None})
  assert left_in(stages, 'codec', 30.0) is None
  assert left_in(stages, 'other', 30.0) == 30.0


@pytest.mark.parametrize('first, second', [(autoencoder, video), (codec, audio)])
def test_all_stages_of_a_quickstart_have_a_usual_time(first, second):
  first, second = first.get_config(), second.get_config()
  parts = [(first, first.component), (second, ENCODE), (second, second.component)]
  found = [usual_seconds(config, what) for config, what in parts]
  assert all(seconds > 5 for seconds in found) and found[1] < found[2]
  assert usual_seconds(first, 'upsampler') is None
