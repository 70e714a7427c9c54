"""The autoencoder's loss against its formulas in numpy."""

import dataclasses

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mgjax.core.typing import Critic
from mgjax.models.tae.autoencoder import Posterior
from mgjax.models.tae.objective import (
  LossWeights,
  make_adversarial_objective,
  make_objective,
  prior_divergence,
  reconstruction_loss,
)
from mgjax.models.tae.perceptual import Perceptual

EPS = float(np.finfo(np.float32).eps)


def arrays():
  rng = np.random.default_rng(0)
  shapes = [(2, 3, 4, 4, 3)] * 2 + [(2, 1, 2, 2, 4)] * 2
  return [rng.normal(size=shape).astype(np.float32) for shape in shapes]


def divergence(mean, log_variance):
  """KL(N(m, s^2) || N(0, 1)) = log(1 / s) + (s^2 + m^2) / 2 - 1 / 2, as the textbooks write it."""
  mean, deviation = np.float64(mean), np.exp(np.float64(log_variance) / 2)
  return np.mean(np.log(1 / deviation) + (deviation**2 + mean**2) / 2 - 0.5)


def test_divergence_is_the_textbooks():
  _, _, mean, log_variance = arrays()
  found = prior_divergence(Posterior(jnp.asarray(mean), jnp.asarray(log_variance)))
  assert float(found) == pytest.approx(divergence(mean, log_variance), rel=32 * EPS)


@pytest.mark.parametrize('weights', [{}, {'kl': 0.1}, {'mse': 4.0}])
def test_loss_is_the_weighted_sum(weights):
  video, again, mean, log_variance = arrays()
  posterior = Posterior(jnp.asarray(mean), jnp.asarray(log_variance))
  seen = []

  def predict(video, key):
    seen.append(key)
    return jnp.asarray(again), posterior

  key = jax.random.key(3)
  loss, metrics = make_objective(LossWeights(**weights))(
    predict, {'video': jnp.asarray(video)}, key
  )
  difference = np.float64(video) - np.float64(again)
  l1, mse = np.abs(difference).mean(), (difference**2).mean()
  kl = divergence(mean, log_variance)
  weights = {'mse': 0.0, 'kl': 1e-6} | weights
  exact = l1 + weights['mse'] * mse + weights['kl'] * kl
  # Sums over 288 numbers.
  assert float(loss) == pytest.approx(exact, rel=300 * EPS)
  assert float(metrics['loss']) == float(loss)
  assert float(metrics['l1']) == pytest.approx(l1, rel=300 * EPS)
  assert float(metrics['kl']) == pytest.approx(kl, rel=300 * EPS)
  assert float(metrics['psnr']) == pytest.approx(10 * np.log10(4 / mse), rel=300 * EPS)
  assert seen == [key]


class Distance(Perceptual):
  """LPIPS of one number: w |x - y|."""

  def setup(self):
    self.w = self.param('w', nn.initializers.ones, ())

  def __call__(self, x, y):
    return self.w * jnp.abs(x - y).mean((2, 3, 4))


def test_perceptual_parameters_are_an_argument():
  video, again, mean, log_variance = map(jnp.asarray, arrays())
  predict = lambda video, key: (again, Posterior(mean, log_variance))  # noqa: E731
  weights, key = LossWeights(perceptual=2.0, kl=0.0), jax.random.key(0)
  given = {'batch': {'video': video}, 'key': key, 'lpips': {'w': jnp.float32(3)}}
  l1 = float(jnp.abs(video - again).mean())
  loss, metrics = make_objective(weights, Distance())(predict, **given)
  # The reconstruction loss and 2 x 3 times the same distance; sums over 288 numbers.
  assert float(loss) == pytest.approx(7 * l1, rel=300 * EPS)
  assert float(metrics['lpips']) == pytest.approx(3 * l1, rel=300 * EPS)
  critic = Critic(lambda y: (y.mean(-1, keepdims=True),), jnp.asarray(False))
  objective = make_adversarial_objective(dataclasses.replace(weights, adversarial=0.1), Distance())
  assert float(objective(predict, critic=critic, **given)[0]) == float(loss)


def test_loss_is_float32_whatever_the_reconstruction():
  video = jnp.ones((1, 1, 64, 64, 3))
  low = video.astype(jnp.bfloat16) * 0.5
  assert reconstruction_loss(video, low).dtype == jnp.float32
  assert float(reconstruction_loss(video, low)) == 0.5
