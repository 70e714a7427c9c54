"""Samples of few steps become those of data by a discriminator that reads their conditions."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from mgjax.core.errors import ConfigError
from mgjax.core.typing import Critic
from mgjax.flow.distillation.adversarial import (
  Adversarial,
  make_adversarial,
  make_discriminator_objective,
)
from tests.flow.distillation.players import play, shift
from tests.flow.distillation.test_few_steps import ROWS, SHAPE, batch, model

EPS = np.finfo(np.float32).eps
FIELDS = {'teacher': 'runs/teacher', 'schedule': {'name': 'linear'}, 'steps': (1, 4)}
SETTINGS = Adversarial(**FIELDS, penalty=0.3, mismatch=0.7)
ACTIVE = jnp.asarray(True)
SLOPE = np.random.default_rng(3).normal(size=SHAPE)


def discriminator(scale=1.0, calls=None):
  """Answers scale (slope x + text): logits are its sums over the root of their number."""

  def predict(x, time, given, drop):
    if calls is not None:
      calls.append((x, time))
    return scale * (jnp.asarray(SLOPE, jnp.float32)[None] * x + given['text'][:, None, None])

  return predict


def logits(x, text, scale=1.0):
  answer = scale * (SLOPE * np.asarray(x, np.float64) + np.asarray(text, np.float64)[:, None, None])
  return answer.mean((1, 2)) * np.prod(SHAPE) ** 0.5


def run(scale=1.1, against=1.0, active=ACTIVE):
  judge = Critic(discriminator(against), active)
  return make_adversarial(SETTINGS)(model(scale), batch(), jax.random.key(0), judge, teacher=None)


def softplus(x):
  return np.logaddexp(0, x).mean()


def test_the_students_loss_compares_each_sample_with_the_clip_of_its_row():
  loss, metrics, made = run()
  real, fake = (logits(x, batch()['text']) for x in (batch()['latents'], made))
  # Some ten roundings of sums of six numbers of at most ten.
  np.testing.assert_allclose(loss, softplus(real - fake), rtol=100 * EPS)
  assert metrics['loss'] == loss


def test_the_discriminator_reads_and_is_smooth():
  made = jnp.asarray(np.random.default_rng(1).normal(size=(ROWS, *SHAPE)), jnp.float32)
  calls = []
  learn = make_discriminator_objective(SETTINGS)
  loss, metrics = learn(discriminator(calls=calls), batch(), made, jax.random.key(1))
  ((x, time),) = calls  # one call for all of it
  assert len(x) == 5 * ROWS and np.all(time == 1)
  x = np.asarray(x).reshape(ROWS, 5, *SHAPE)
  text, (real, fake, near_real, near_fake, again) = batch()['text'], np.moveaxis(x, 1, 0)
  assert np.array_equal(real, batch()['latents']) and np.array_equal(again, real)
  assert np.array_equal(fake, made)
  of_real, of_made = logits(real, text), logits(made, text)
  apart, read = softplus(of_made - of_real), softplus(logits(real, np.roll(text, 1)) - of_real)
  slopes = sum(
    np.mean(((logits(near, text) - at) / 0.02) ** 2)
    for near, at in ((near_real, of_real), (near_fake, of_made))
  )
  np.testing.assert_allclose(metrics['discriminator_loss/apart'], apart, rtol=100 * EPS)
  np.testing.assert_allclose(metrics['discriminator_loss/read'], read, rtol=100 * EPS)
  # Differences of logits of at most ten, which are .02 apart.
  np.testing.assert_allclose(metrics['discriminator_loss/slopes'], slopes, rtol=2000 * EPS)
  np.testing.assert_allclose(loss, apart + 0.7 * read + 0.15 * slopes, rtol=2000 * EPS)


def test_slopes_by_differences_are_gradients_on_average():
  rows = {'latents': jnp.zeros((4096, *SHAPE)), 'text': jnp.zeros(4096)}
  learn = make_discriminator_objective(SETTINGS)
  _, metrics = learn(discriminator(), rows, rows['latents'], jax.random.key(2))
  square = np.sum(SLOPE**2) / np.prod(SHAPE)  # of the gradient of a logit
  # 4,096 squares of normal numbers, of which each is its variance times 1 +- sqrt(2).
  bound = 5 * np.sqrt(2 / 4096)
  np.testing.assert_allclose(metrics['discriminator_loss/slopes'], 2 * square, rtol=bound)


def test_neither_player_learns_from_the_loss_of_the_other():
  learn = make_discriminator_objective(SETTINGS)

  def of_student(scale, against=1.0):
    return learn(discriminator(), batch(), run(scale, against)[2], jax.random.key(1))[0]

  assert jax.grad(of_student)(1.1) == 0
  assert jax.grad(lambda against: of_student(1.1, against))(0.5) == 0
  assert jax.grad(lambda scale: run(scale)[0])(1.1) != 0


def test_a_discriminator_that_has_not_begun_says_nothing():
  assert jax.grad(lambda scale: run(scale, active=jnp.asarray(False))[0])(1.1) == 0


def test_one_step_learns_mean_and_deviation_of_data():
  """Against D(x) = a x - b x^2; the student makes m + d noise of what is N(1.5, .4^2)."""
  settings = Adversarial(**FIELDS | {'steps': (1,)}, penalty=0.3, mismatch=0.0)
  learn, follow = make_adversarial(settings), make_discriminator_objective(settings)

  def parabola(params):
    return lambda x, time, given, drop: params[0] * x - params[1] * x**2

  def losses(student, against, key):
    data_key, key = jax.random.split(key)
    rows = {'latents': 1.5 + 0.4 * jax.random.normal(data_key, (256, 1))}

    def mine(params):
      value, _, made = learn(shift(params), rows, key, Critic(parabola(against), ACTIVE))
      return value, made

    return mine, lambda params, made: follow(parabola(params), rows, made, key)[0]

  rates = (
    optax.adam(optax.cosine_decay_schedule(1e-2, 3000), b1=0.0, b2=0.99),
    optax.adam(2e-2, b1=0.0, b2=0.99),
  )
  student, _ = play(losses, ((0.0, 1.0), (0.0, 0.0)), rates, 3000)
  # Adam's noise at a rate of 1e-2, falling; the student began 1.5 and .6 away. A sign of d is none.
  np.testing.assert_allclose(np.abs(student), (1.5, 0.4), atol=0.1)


def test_a_penalty_is_no_less_than_zero():
  with pytest.raises(ConfigError, match='penalty'):
    Adversarial(**FIELDS, penalty=-1.0)
