"""Evidence: log likelihood ratios of a model that knows the answer, beside those in closed form."""

import jax
import jax.numpy as jnp
import numpy as np

from mgjax.models.flow_model.likelihood import make_evidence

VARIANCE = 0.25


def predict(x, time, batch, drop):
  """The velocity of N(mean, variance): E[X_1 | X_t] in closed form."""
  t = time[:, None]
  seen = t**2 * VARIANCE + (1 - t) ** 2
  data = batch['mean'][:, None] + t * VARIANCE / seen * (x - t * batch['mean'][:, None])
  return (data - x) / (1 - t)


def test_differences_are_log_likelihood_ratios_of_normal_distributions():
  rng = np.random.default_rng(0)
  means = np.array([0.3, -0.2, 0.0, 0.6])
  data = means[:, None] + np.sqrt(VARIANCE) * rng.normal(size=(4, 4096))
  ratios = []
  for seed in range(8):
    evidence = make_evidence(predict, points=64)
    found = [
      evidence(
        jnp.asarray(data, jnp.float32),
        {'mean': jnp.asarray(mean, jnp.float32)},
        {},
        jax.random.key(seed),
      )
      for mean in (means, means + 0.1)
    ]
    ratios.append(np.asarray(found[0] - found[1], np.float64))
  # Above t = .9, snr 81, half of what the data say is left out: 1 / (1 + 81 v) of it and no more.
  away = np.square(data - means[:, None] - 0.1) - np.square(data - means[:, None])
  wanted = away.sum(1) / (2 * VARIANCE)
  scatter = np.std(ratios, axis=0) / np.sqrt(8)
  np.testing.assert_allclose(
    np.mean(ratios, 0), wanted, atol=4 * scatter.max() + 0.06 * wanted.max()
  )
  assert scatter.max() < 0.1 * wanted.max()


def test_conditions_that_say_the_same_are_as_likely_to_the_bit():
  data = jnp.asarray(np.random.default_rng(1).normal(size=(3, 5)), jnp.float32)
  evidence = jax.jit(make_evidence(predict))
  batch = {'mean': jnp.zeros(3)}
  one, other = (evidence(data, batch, {}, jax.random.key(0)) for _ in range(2))
  np.testing.assert_array_equal(one, other)
