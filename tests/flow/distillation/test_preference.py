"""Learning from votes: the loss in float64, its direction, and pairs that are not pairs."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mgjax.core.errors import DataError
from mgjax.flow import times
from mgjax.flow.distillation.preference import Preference, make_preference
from mgjax.flow.path import FlowMatching

SHAPE = (5, 3, 2, 2, 4)  # b t h w c
KEY = jax.random.key(7)
EPS = np.finfo(np.float32).eps


def draw(seed):
  return np.random.default_rng(seed).normal(size=SHAPE)


def predict_with(scale):
  """A model with one parameter, which every input moves."""

  def predict(x, time, batch, drop):
    label = jnp.where(drop.get('label', False), 0.0, batch['label'])
    return scale * x + (time + 0.1 * label)[:, None, None, None, None]

  return predict


def objective(beta=20.0, supervised=0.3):
  return make_preference(
    Preference(beta=beta, supervised=supervised),
    lambda scale: predict_with(scale),
    dropout={},
    sample_time=times.logit_normal,
    prediction=FlowMatching(),
  )


def batch(votes=None):
  given = {'latents': draw(0), 'rejected': draw(1), 'label': np.arange(5.0)}
  given |= {} if votes is None else {'votes': votes}
  return {name: jnp.asarray(array, jnp.float32) for name, array in given.items()}


VOTES = np.sign(np.random.default_rng(4).normal(size=SHAPE[:2])) * np.array([1, 0.5, 0])


@pytest.mark.parametrize('votes', [None, VOTES])
def test_loss_is_the_numpy_twins(votes):
  loss, metrics = jax.jit(objective(), static_argnums=0)(predict_with(0.3), batch(votes), KEY, 0.5)
  time_key, noise_key, _ = jax.random.split(KEY, 3)
  t = np.asarray(times.logit_normal(time_key, (5,)), np.float64)[:, None, None, None, None]
  noise = np.asarray(jax.random.normal(noise_key, SHAPE), np.float64)
  label = np.arange(5.0)[:, None, None, None, None]

  def error(data, scale):
    x, target = t * data + (1 - (1 - 1e-5) * t) * noise, data - (1 - 1e-5) * noise
    return np.square(scale * x + t + 0.1 * label - target).mean((2, 3, 4))

  chosen, rejected = (
    np.asarray(each, np.float32).astype(np.float64) for each in (draw(0), draw(1))
  )
  margin = (error(rejected, 0.3) - error(rejected, 0.5)) - (error(chosen, 0.3) - error(chosen, 0.5))
  if votes is None:
    margin, p = margin.mean(1), np.ones(5)
  else:
    p = votes
  said = np.abs(p).sum()
  wanted = (np.abs(p) * np.log1p(np.exp(-10 * np.sign(p) * margin))).sum() / said
  supervised = error(chosen, 0.3).mean()
  np.testing.assert_allclose(loss, wanted + 0.3 * supervised, rtol=100 * EPS)
  np.testing.assert_allclose(metrics['accuracy'], (np.abs(p) * (p * margin > 0)).sum() / said)


def test_the_reference_itself_has_no_margin_and_learns_towards_what_was_chosen():
  loss = lambda scale: objective(supervised=0.0)(predict_with(scale), batch(), KEY, 0.5)  # noqa: E731
  value, metrics = loss(0.5)
  np.testing.assert_allclose(value, np.log(2), rtol=1e-6)
  assert metrics['margin'] == 0
  step = 0.5 - 1e-3 * jax.grad(lambda scale: loss(scale)[0])(0.5)
  assert loss(step)[1]['margin'] > 0


def test_turned_votes_turn_the_gradient_of_a_reference():
  def gradient(votes):
    return jax.grad(
      lambda scale: objective(supervised=0.0)(predict_with(scale), batch(votes), KEY, 0.5)[0]
    )(0.5)

  np.testing.assert_allclose(gradient(VOTES), -gradient(-VOTES), rtol=1e-4)


def test_what_is_no_pair_is_refused():
  alone = {name: array for name, array in batch().items() if name != 'rejected'}
  with pytest.raises(DataError, match='and rejected nothing; expected two of one shape'):
    objective()(predict_with(0.3), alone, KEY, 0.5)
  short = batch() | {'rejected': jnp.zeros((5, 1, 2, 2, 4))}
  with pytest.raises(DataError, match=r'rejected \(5, 1, 2, 2, 4\)'):
    objective()(predict_with(0.3), short, KEY, 0.5)
