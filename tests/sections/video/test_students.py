"""Video models that learn from a teacher, from their configurations to their videos: in few steps,
in few steps against a critic or a discriminator, or at any scale of guidance in one pass.
"""

import shutil

import numpy as np
import pytest

from configs.base import distilled_guidance
from mgjax.api import train
from mgjax.core.errors import CheckpointError, ConfigError
from mgjax.sections.editing.pipeline import Editor
from mgjax.sections.video.pipeline import VideoPipeline
from mgjax.training.checkpoints.load_params import load_params
from tests import tiny

pytestmark = pytest.mark.usefixtures('on_one_device')

PROMPTS, SHAPE = ['the red digit 7 moves up'], (4, 16, 16)
RATE = 1e-3
SHORT = {'train__save_every': 1, 'train__evaluate_every': 0}
END = 3  # steps that each of them trains


def guided(runs, **changes):
  config = distilled_guidance(tiny.video(runs), str(runs / 'video'), highest=5.0)
  config.update_from_flattened_dict(tiny.dotted(changes))
  return config


def few_steps(runs, **changes):
  return tiny.student(runs, 'few_steps', 8, **changes)


def matching(runs, **changes):
  config = tiny.student(
    runs, 'distribution_matching', (1, 2), optimizer__learning_rate=RATE, **changes
  )
  config.discriminator = {'optimizer': config.optimizer.to_dict(), 'start': 0}
  return config


def adversarial(runs, **changes):
  config = tiny.student(runs, 'adversarial', (1, 2), optimizer__learning_rate=RATE, **changes)
  del config.objective.adversarial['guidance']
  config.discriminator = {'optimizer': config.optimizer.to_dict(), 'start': 0, 'dim': 8, 'depth': 1}
  return config


STUDENTS = {
  'guided': guided,
  'few_steps': few_steps,
  'matching': matching,
  'adversarial': adversarial,
}
OPPOSED = ('matching', 'adversarial')


def student(kind, runs, **changes):
  # One kind is trained to its last step, which validates and draws samples; the others stop before.
  steps = END if kind == 'adversarial' else END + 1
  return STUDENTS[kind](runs, train__steps=steps, **SHORT, **changes)


@pytest.fixture(scope='module')
def learnt(tiny_runs, tmp_path_factory):
  """Kind -> the work directory and the final state, trained when it is first asked for."""
  made = {}

  def learn(kind):
    if kind not in made:
      workdir = tmp_path_factory.mktemp(kind)
      made[kind] = workdir, train(student(kind, tiny_runs), workdir, stop_at=END)
    return made[kind]

  return learn


def losses(workdir, name='loss'):
  return {row['step']: row[name] for row in tiny.metrics(workdir) if name in row}


@pytest.mark.parametrize(
  'kind', ['few_steps', 'matching', pytest.param('adversarial', marks=pytest.mark.slow)]
)
def test_it_trains_and_samples_in_the_steps_that_it_learnt(learnt, kind):
  workdir, _ = learnt(kind)
  parts = (
    ('loss', 'discriminator_loss') if kind in OPPOSED else ('loss/own_steps', 'loss/teachers_steps')
  )
  for name in parts:
    assert min(losses(workdir, name).values()) > 0
  assert VideoPipeline(workdir, steps=1).generate(PROMPTS, shape=SHAPE).shape == (1, *SHAPE, 3)
  known = '1, 2; take one' if kind in OPPOSED else '1, 2, 4'
  with pytest.raises(ConfigError, match=f'8 steps of a model that learned to take {known}'):
    VideoPipeline(workdir, steps=8)
  with pytest.raises(ConfigError, match='learned its few steps with'):
    VideoPipeline(workdir, guidance=3)


def test_it_trains_and_samples_at_the_scales_that_it_learnt(learnt, tiny_runs):
  workdir, _ = learnt('guided')
  assert np.any(load_params(workdir)[0]['guidance_scale']['out']['kernel'])
  assert 'guidance_scale' not in load_params(tiny_runs / 'video')[0]
  one, five = (
    VideoPipeline(workdir, guidance={'text': scale}).generate(PROMPTS, shape=SHAPE)
    for scale in (1.0, 5.0)
  )
  assert one.shape == five.shape == (1, *SHAPE, 3) and np.any(one != five)
  with pytest.raises(ConfigError, match=r'is 6.0 of a model that learned scales from 1 to 5'):
    VideoPipeline(workdir, guidance={'text': 6.0})
  with pytest.raises(ConfigError, match="negative = 'blur', and no guidance that could lead"):
    VideoPipeline(workdir, guidance=3).generate(PROMPTS, shape=SHAPE, negative='blur')
  with pytest.raises(ConfigError, match='learned from a teacher'):
    Editor(workdir)


def test_both_players_begin_as_the_teacher(learnt, tiny_runs):
  before, _ = load_params(tiny_runs / 'video')
  _, state = learnt('matching')
  for player in (state.params, state.discriminator['params']):
    assert 'step_size' in player and 'step_size' not in before
    moved = player['backbone']['patch_out']['kernel'] - before['backbone']['patch_out']['kernel']
    # Three steps of Adam, each of at most the learning rate or somewhat more, but for the decay.
    assert 0 < np.max(np.abs(moved)) < 3 * 2 * RATE


@pytest.mark.parametrize('kind', ['guided', *OPPOSED])
def test_a_run_that_goes_on_from_a_checkpoint_is_an_undisturbed_one(
  learnt, tiny_runs, tmp_path, kind
):
  workdir, whole = learnt(kind)
  again = shutil.copytree(workdir, tmp_path / kind)
  for step in range(2, END + 1):
    shutil.rmtree(again / 'checkpoints' / str(step))
  assert tiny.same_state(train(student(kind, tiny_runs), again, stop_at=END), whole)
  assert tiny.losses(again) == tiny.losses(workdir)


# Two players and their teacher hold what the others need of a mesh, a student and a teacher.
@pytest.mark.parametrize(
  'kind',
  [
    *(pytest.param(each, marks=pytest.mark.slow) for each in ('guided', 'few_steps', 'matching')),
    'adversarial',
  ],
)
def test_devices_that_share_rows_or_tokens_learn_the_same(learnt, tiny_runs, tmp_path, kind):
  shared = {'mesh__data': 4, 'mesh__context': 2, 'rules': 'fsdp_cp'}
  train(student(kind, tiny_runs, **shared), tmp_path, stop_at=2)
  for name in ('loss', *(('discriminator_loss',) if kind in OPPOSED else ())):
    found, alone = losses(tmp_path, name), losses(learnt(kind)[0], name)
    # Updates by gradients that differ by rounding, in steps of Adam of 1e-3.
    np.testing.assert_allclose([found[1], found[2]], [alone[1], alone[2]], rtol=1e-4)


def without_scale(config):
  del config.model.conditionings.guidance_scale, config.objective.dropout.guidance_scale


def both(config):
  config.objective.few_steps = config.objective.distribution_matching.to_dict() | {'steps': 8}


@pytest.mark.parametrize(
  ('kind', 'spoil', 'error', 'sentence'),
  [
    ('guided', without_scale, ConfigError, "'kind': 'guidance_scale'"),
    (
      'few_steps',
      lambda config: config.objective.few_steps.update(teacher='/nobody'),
      CheckpointError,
      'no checkpoint in .*nobody',
    ),
    (
      'matching',
      lambda config: config.discriminator.update(widths=(16,)),
      ConfigError,
      r"\['widths'\]; the critic is a network as its",
    ),
    (
      'matching',
      lambda config: delattr(config, 'discriminator'),
      ConfigError,
      "configuration has nothing as 'discriminator'",
    ),
    ('matching', both, ConfigError, 'one model learns one of them'),
  ],
)
def test_what_cannot_be_is_one_sentence(tiny_runs, tmp_path, kind, spoil, error, sentence):
  config = student(kind, tiny_runs)
  spoil(config)
  with pytest.raises(error, match=sentence):
    train(config, tmp_path)
