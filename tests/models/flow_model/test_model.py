"""The whole text-to-video model: what conditions do, and what a batch may not do."""

import itertools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import traverse_util

from mgjax.core.errors import ConfigError, DataError
from mgjax.flow.diffusion import VPrediction
from mgjax.models.backbone.transformer import Transformer
from mgjax.models.conditioning.byte_text import ByteText
from mgjax.models.conditioning.numbers.step_size import StepSize
from mgjax.models.flow_model.build import make_sampler_of
from mgjax.models.flow_model.initial_noise import draw_noise
from mgjax.models.flow_model.model import FlowModel, grow
from mgjax.models.flow_model.objectives import OBJECTIVES, make_objectives
from mgjax.models.flow_model.sampling import (
  Experts,
  make_generate,
  make_predict,
  make_read,
)
from mgjax.models.flow_model.settings import STUDENTS, VELOCITY, ObjectiveSettings, SampleSettings
from mgjax.models.text.tokenizers import byte_tokens
from tests.models.backbone.test_transformer import TOLERANCE, close, differs, draw
from tests.random_parameters import random_parameters

ROWS, LENGTH, LATENTS = 3, 12, (2, 4, 4, 4)


def model(positions=(2, 2, 2)):
  text = ByteText(32, width=16, depth=1, heads=2, length=LENGTH, name='text')
  return FlowModel(Transformer(32, 2, 4, 48, positions, name='backbone'), (text,))


def prompts(*texts):
  return {'text': jnp.asarray(np.stack([byte_tokens(text, LENGTH) for text in texts]))}


X, TIME, BATCH = draw(ROWS, *LATENTS), jnp.array([0.1, 0.5, 0.9]), prompts('a', 'two', 'red 3')
NONE, ALL = {'text': jnp.zeros(ROWS, bool)}, {'text': jnp.ones(ROWS, bool)}


@pytest.fixture(scope='module')
def params():
  return random_parameters(model().init, X, TIME, BATCH, {})


@jax.jit
def apply(params, x, time, batch, drop):
  return model().apply({'params': params}, x, time, batch, drop)


def test_dropped_text_is_the_unconditional_model(params):
  dropped = apply(params, X, TIME, BATCH, ALL)
  np.testing.assert_array_equal(apply(params, X, TIME, prompts('x', 'y', 'z'), ALL), dropped)
  close(apply(params, X, TIME, prompts('', '', ''), NONE), dropped)
  assert differs(apply(params, X, TIME, BATCH, NONE), dropped)


def test_only_the_rows_that_are_dropped_lose_their_text(params):
  y = apply(params, X, TIME, BATCH, {'text': jnp.array([False, True, False])})
  close(y[::2], np.asarray(apply(params, X, TIME, BATCH, NONE))[::2])
  close(y[1], np.asarray(apply(params, X, TIME, BATCH, ALL))[1])


def test_what_drop_does_not_name_is_kept(params):
  close(apply(params, X, TIME, BATCH, {}), apply(params, X, TIME, BATCH, NONE))


def test_a_batch_without_text_says_so(params):
  with pytest.raises(DataError, match=r"conditioning 'text' requires \['text'\], .* \['latents'\]"):
    jax.eval_shape(apply, params, X, TIME, {'latents': X}, NONE)


def test_a_grown_model_has_only_other_positions(params):
  grown = grow(params, (4, 6, 6))
  assert grown['text'] is params['text']
  tables = grown['backbone'].pop('positions')
  assert [len(tables[name]) for name in ('time', 'height', 'width')] == [4, 6, 6]
  expected = {name: leaf for name, leaf in params['backbone'].items() if name != 'positions'}
  assert all(grown['backbone'][name] is leaf for name, leaf in expected.items())
  assert len(params['backbone']['positions']['time']) == 2  # the old ones stay as they were


def test_a_guided_sample_is_two_steps_of_euler(params):
  times = np.array([0.0, 0.25, 1.0])
  generate = make_generate(model(), times=times, solver='euler', guidance=(('text', 2.0),))
  x = np.asarray(X)
  for time, step in ((0.0, 0.25), (0.25, 0.75)):
    time = jnp.full(ROWS, time)
    kept, dropped = (np.asarray(apply(params, x, time, BATCH, drop)) for drop in (NONE, ALL))
    x = x + step * (dropped + 2 * (kept - dropped))
  # The first step's error passes once more through a model of slope about ten.
  np.testing.assert_allclose(generate(params, BATCH, X), x, atol=50 * TOLERANCE * np.abs(x).max())


def test_what_conditions_say_is_read_once_for_all_steps(params):
  """The model of the steps has neither an encoder of text nor maps to keys and values."""
  drop = {'text': jnp.array([False, True, False])}
  read = jax.jit(make_read(model(), params, LATENTS))(BATCH, drop)
  of_text = (
    'text/',
    'backbone/layers/cross_attention/key',
    'backbone/layers/cross_attention/value',
  )
  broken = {
    name: leaf * jnp.nan if name.startswith(of_text) else leaf
    for name, leaf in traverse_util.flatten_dict(params, sep='/').items()
  }
  assert sum(bool(jnp.isnan(leaf).any()) for leaf in broken.values()) > 2
  broken = traverse_util.unflatten_dict(broken, sep='/')
  once = jax.jit(make_predict(model(), broken))(X, TIME, read, drop)
  np.testing.assert_allclose(once, apply(params, X, TIME, BATCH, drop), rtol=1e-6, atol=1e-6)


def test_samples_of_a_v_prediction_model_are_those_of_its_converted_answers(params):
  """By hand: x = X_t / r at flow time t, and u = (alpha - sigma) x - (alpha + sigma) v."""
  times = {'name': 'linear_quadratic', 'emulated': 4, 'linear_steps': 1}
  settings = SampleSettings((('text', 1.0),), times, 'euler', 2)
  prediction = {'name': 'v_prediction', 'steps': 10}
  objective = ObjectiveSettings({'text': 0.1}, {'name': 'uniform'}, prediction=prediction)
  table = VPrediction(steps=10).flow_times()
  x = np.asarray(X, np.float64)
  for time, step in ((0.0, 0.25), (0.25, 0.75)):
    norm = np.hypot(time, 1 - time)
    own = np.interp(time, table, np.linspace(0, 1, 11))
    given = (jnp.asarray(x / norm, jnp.float32), jnp.full(ROWS, own, jnp.float32))
    v = np.asarray(apply(params, *given, BATCH, NONE), np.float64)
    x = x + step * ((2 * time - 1) * x / norm - v) / norm
  generate = make_sampler_of(settings, objective, model())
  np.testing.assert_allclose(generate(params, BATCH, X), x, atol=50 * TOLERANCE * np.abs(x).max())


def test_every_kind_of_objective_has_its_maker():
  assert OBJECTIVES.keys() == {VELOCITY, *STUDENTS}
  assert ObjectiveSettings({}, {'name': 'uniform'}).kind == VELOCITY
  assert ObjectiveSettings({}, {'name': 'uniform'}, few_steps=LEARNT).kind == 'few_steps'


def test_both_objectives_of_a_v_prediction_model_are_of_v():
  prediction = {'name': 'v_prediction', 'steps': 10}
  objective = ObjectiveSettings({'text': 0.1}, {'name': 'uniform'}, prediction=prediction)
  flow = ObjectiveSettings({'text': 0.1}, {'name': 'uniform'})
  batch = {'latents': X}

  def answer_zero(x, time, batch, drop):
    return jnp.zeros_like(x)

  of_both = [make_objectives(each, model()) for each in (objective, flow)]
  for v, u in ([each.train for each in of_both], [each.validate for each in of_both]):
    (of_v, _), (of_u, _) = (each(answer_zero, batch, jax.random.key(0)) for each in (v, u))
    # The mean square of v is that of data and of noise, each by its share; that of u their sum.
    assert of_v < 1.3 and of_u > 1.6


def test_noise_depends_on_seed_and_index_alone():
  noise = np.asarray(draw_noise(0, np.array([0, 1, 2, 3]), LATENTS))
  np.testing.assert_array_equal(draw_noise(0, np.array([3, 1]), LATENTS), noise[[3, 1]])
  assert not np.array_equal(noise[0], noise[1])
  assert not np.array_equal(draw_noise(1, np.array([0, 1, 2, 3]), LATENTS), noise)
  # Five standard errors of 4 x 128 draws.
  assert abs(noise.mean()) < 5 / np.sqrt(noise.size)
  assert abs(noise.std() - 1) < 5 / np.sqrt(2 * noise.size)


LEARNT = {
  'teacher': 'runs/teacher',
  'guidance': (('text', 3.0),),
  'schedule': {'name': 'linear'},
  'steps': 8,
}


def stepping():
  """The model of this file that can be told which step to take."""
  plain = model()
  return plain.clone(conditionings=(*plain.conditionings, StepSize(32, name='step_size')))


def few_steps(**sample):
  objective = ObjectiveSettings(
    dropout={'text': 0.1, 'step_size': 0.0}, time={'name': 'uniform'}, few_steps=LEARNT
  )
  fields = {'guidance': (), 'schedule': {'name': 'linear'}, 'solver': 'euler', 'steps': 4} | sample
  return make_sampler_of(SampleSettings(**fields), objective, stepping())


def test_a_model_that_is_to_learn_few_steps_begins_as_it_was(params):
  told = BATCH | {'step_size': jnp.full(ROWS, 0.5)}
  fresh = nn.unbox(jax.jit(stepping().init)(jax.random.key(0), X, TIME, told, {}))['params']
  grown = jax.jit(stepping().apply)({'params': fresh | params}, X, TIME, told, {})
  np.testing.assert_array_equal(grown, apply(params, X, TIME, BATCH, {}))


def test_few_steps_are_told_how_large_they_are():
  told = lambda share: BATCH | {'step_size': jnp.full(ROWS, share)}  # noqa: E731
  params = random_parameters(stepping().init, X, TIME, told(0.5), {})

  @jax.jit
  def velocity(x, time, batch):
    return stepping().apply({'params': params}, x, jnp.full(ROWS, time), batch, {})

  x = X
  for step in range(4):
    x += velocity(x, step / 4, told(0.25)) / 4
  few = few_steps()(params, BATCH, X)
  close(few, x)
  assert differs(few, few_steps(steps=2)(params, BATCH, X))


def test_steps_that_were_not_learnt_are_refused():
  for changes, said in (
    ({'steps': 3}, '3 steps of a model that learned to take 1, 2, 4'),
    ({'guidance': (('text', 2.0),)}, 'learned its few steps with'),
    ({'solver': 'heun'}, "solver 'heun'"),
    ({'schedule': {'name': 'linear', 'shift_factor': 2.0}}, "takes all of those of 'euler' with"),
  ):
    with pytest.raises(ConfigError, match=said):
      few_steps(**changes)
  settings = ObjectiveSettings(dropout={'text': 0.1}, time={'name': 'uniform'}, few_steps=LEARNT)
  with pytest.raises(ConfigError, match="'kind': 'step_size'"):
    make_objectives(settings, model())
  with pytest.raises(ConfigError, match="'v_prediction'; expected 'flow'"):
    ObjectiveSettings(
      dropout={}, time={'name': 'uniform'}, prediction={'name': 'v_prediction'}, few_steps=LEARNT
    )


SINCE = 0.4
TIMES = np.array([0.0, 0.15, 0.3, 0.45, 0.8, 1.0])  # three steps of the one, two of the other


@pytest.fixture(scope='module')
def both():
  return [random_parameters(model().init, X, TIME, BATCH, {}, seed=seed) for seed in (0, 1)]


@pytest.mark.parametrize('guidance', [(), (('text', 4.0),)])
def test_each_step_is_taken_by_the_expert_of_its_time(both, guidance):
  generate = make_generate(model(), times=TIMES, solver='euler', guidance=guidance)
  made = generate(Experts(*both, SINCE), BATCH, X)
  x = X
  for now, then in itertools.pairwise(TIMES):
    params = both[0] if now < SINCE else both[1]
    time = jnp.full(ROWS, now, jnp.float32)
    velocity = apply(params, x, time, BATCH, NONE)
    if guidance:
      away = apply(params, x, time, BATCH, {'text': jnp.ones(ROWS, bool)})
      velocity = away + 4.0 * (velocity - away)
    x = x + jnp.float32(then - now) * velocity
  close(made, np.asarray(x))


def test_rows_at_several_times_are_answered_by_one_expert_each(both):
  predict = jax.jit(make_predict(model(), Experts(*both, SINCE)))
  found = predict(X, TIME, BATCH, NONE)
  early, late = (apply(params, X, TIME, BATCH, NONE) for params in both)
  close(found, np.where((TIME < SINCE)[:, None, None, None, None], early, late))
