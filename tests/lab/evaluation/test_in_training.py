"""Checkpoints are evaluated while a run trains, as `config.evaluators` asks."""

import json

import pytest
from ml_collections import ConfigDict

import mgjax
from mgjax.core.errors import ConfigError
from mgjax.core.tree import named_leaves
from mgjax.lab.evaluation.in_training import evaluator_options
from mgjax.registry import make_spec
from mgjax.training.checkpoints.load_params import load_params
from mgjax.training.checkpoints.workdir import read_config
from tests import binaries, tiny
from tests.tensors import assert_same

QUICK = {'every': 4, 'samples': 2, 'seed': 1}


@pytest.fixture
def with_evaluators(tiny_runs):
  def make(**evaluators):
    config = tiny.video(tiny_runs, train__save_every=2)
    with config.unlocked():
      config.evaluators = ConfigDict(evaluators)
    return config

  return make


def test_numbers_of_checkpoints_are_those_of_the_command_and_change_no_step(
  with_evaluators, tmp_path
):
  watched, alone = tmp_path / 'watched', tmp_path / 'alone'
  mgjax.train(with_evaluators(quick=QUICK), watched)
  mgjax.train(with_evaluators(), alone)
  trained, plain = (load_params(run)[0] for run in (watched, alone))
  assert_same(named_leaves(trained), named_leaves(plain))
  rows = [row for row in tiny.metrics(watched) if 'evaluation/quick/alignment/all' in row]
  assert [row['step'] for row in rows] == [4, 8]
  binaries.finish('evaluate', f'--workdir={watched}', '--evaluator=quick')
  again = json.loads((watched / 'evaluation.json').read_text())['measured']['metrics']
  for name, value in again.items():
    if value['value'] is not None:
      assert rows[-1][f'evaluation/quick/{name}'] == value['value'], name
  with pytest.raises(ConfigError, match="has no evaluator 'slow'"):
    evaluator_options(watched, 'slow', read_config(watched).to_dict())


@pytest.mark.parametrize(
  ('evaluator', 'said'),
  [
    (QUICK | {'every': 3}, r'quick.every = 3; expected a multiple of train.save_every = 2'),
    ({'samples': 2}, r'evaluators.quick.every'),
    (QUICK | {'sample': 2}, r'evaluators.quick: .*sample; did you mean samples'),
    ('often', r'quick'),
  ],
)
def test_an_evaluator_that_cannot_be_is_refused_before_training(
  with_evaluators, tmp_path, evaluator, said
):
  with pytest.raises(ConfigError, match=said):
    make_spec(with_evaluators(quick=evaluator), tmp_path)
