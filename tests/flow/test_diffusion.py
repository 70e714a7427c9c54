"""v-prediction against its definition and against DDIM, both written in float64 numpy."""

import dataclasses
import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mgjax.core.errors import ConfigError
from mgjax.flow.diffusion import VPrediction
from mgjax.flow.guidance import make_guided
from mgjax.flow.objective import make_objective
from mgjax.flow.prediction import make_prediction
from mgjax.flow.sample import sample

EPS = np.finfo(np.float32).eps
SHAPE = (64, 5)
MEAN, DEVIATION = 2.0, 0.5
STEPS = 1000


@functools.cache
def alphas(steps=STEPS, first=0.00085, last=0.012):
  """sqrt(alpha-bar) of k = 0 (no noise), 1, ..., steps, as algorithm 1 of arXiv 2305.08891."""
  betas = np.linspace(np.sqrt(first), np.sqrt(last), steps) ** 2
  bars = np.array([np.prod(1 - betas[: k + 1]) for k in range(steps)])
  root = np.sqrt(bars)
  begin, end = root[0], root[-1]
  root = (root - end) * begin / (begin - end)
  return np.concatenate([[1.0], root])


def sigmas():
  return np.sqrt(1 - alphas() ** 2)


def gaussian_v(x, alpha, sigma):
  """The best v of data N(MEAN, DEVIATION^2): expectations given x, in numpy or JAX."""
  variance = alpha**2 * DEVIATION**2 + sigma**2
  residual = (x - alpha * MEAN) / variance
  data, noise = MEAN + alpha * DEVIATION**2 * residual, sigma * residual
  return alpha * noise - sigma * data


def model(x, time, batch, drop):
  """That, of a model that is told its own time, 1 - k / STEPS."""
  step = (1 - time) * STEPS
  table = np.arange(STEPS + 1)
  alpha, sigma = (jnp.interp(step, table, each)[:, None] for each in (alphas(), sigmas()))
  return gaussian_v(x, alpha, sigma)


def noise():
  return np.random.default_rng(0).normal(size=SHAPE).astype(np.float32)


def ddim(x, steps):
  """DDIM without noise, as Song et al. 2021, equation 12, over given steps k down to 0."""
  for k, j in itertools.pairwise(steps):
    alpha, sigma = alphas()[k], sigmas()[k]
    v = gaussian_v(x, alpha, sigma)
    data, noise = alpha * x - sigma * v, sigma * x + alpha * v
    x = alphas()[j] * data + sigmas()[j] * noise
  return x


def test_the_ratio_of_signal_to_noise_is_the_schedules_and_zero_at_the_end():
  t = VPrediction().flow_times()
  assert t[0] == 0 and t[-1] == 1 and (np.diff(t) > 0).all()
  ratio = t[1:-1] / (1 - t[1:-1])  # alpha / sigma
  exact = (alphas()[1:-1] / sigmas()[1:-1])[::-1]
  # sqrt(1 - alpha^2) of alpha near 1 loses four digits of sixteen, either way.
  np.testing.assert_allclose(ratio, exact, rtol=1e-11)
  first = alphas()[1] ** 2
  assert first == pytest.approx(1 - 0.00085, rel=1e-12)  # the first step stays as it was


@pytest.mark.parametrize(
  'steps', [(1000, 0), (1000, 900, 700, 400, 100, 1, 0), range(1000, -1, -20)]
)
def test_euler_over_flow_times_is_ddim_step_by_step(steps):
  steps = list(steps)
  t = VPrediction().flow_times()[STEPS - np.array(steps)]
  velocity = make_guided(VPrediction().as_velocity(model), {}, ())
  ours = jax.jit(functools.partial(sample, velocity))(noise(), t)
  exact = ddim(noise().astype(np.float64), steps)
  # Where the model's table is interpolated, a flow time's rounding moves sigma (0.03 at k = 1) by
  # 1e-6 of it; each step has some twenty roundings of numbers below 8.
  np.testing.assert_allclose(ours, exact, atol=len(steps) * 20 * 8 * EPS + 1e-5)


def test_the_converted_velocity_is_that_of_flow_matching():
  """Of one world there is one best velocity: E[X_1 - X_0 | X_t], whatever a model is trained on."""
  x = 3 * noise()
  t = np.linspace(0, 1, len(x), dtype=np.float32)
  velocity = VPrediction().as_velocity(exact_model)
  variance = (t**2 * DEVIATION**2 + (1 - t) ** 2)[:, None]
  residual = (x - t[:, None] * MEAN) / variance
  exact = MEAN + (t[:, None] * DEVIATION**2 - (1 - t[:, None])) * residual
  ours = jax.jit(lambda x, t: velocity(x, t, {}, {}))(x, t)
  np.testing.assert_allclose(ours, exact, atol=40 * EPS * np.abs(residual).max() + 1e-5)


def exact_model(x, time, batch, drop):
  """The best v at any time, by the inverse of the table."""
  t = jnp.interp(time, np.linspace(0, 1, STEPS + 1), VPrediction().flow_times())[:, None]
  scale = jnp.sqrt(t**2 + (1 - t) ** 2)
  return gaussian_v(x, t / scale, (1 - t) / scale)


def test_the_loss_is_the_numpy_twins():
  batch, key, seen = {'latents': jnp.asarray(noise())}, jax.random.key(3), []

  def predict(x, time, batch, drop):
    seen.append((np.asarray(x, np.float64), np.asarray(time, np.float64)))
    return 0.3 * x

  objective = make_objective(dropout={}, sample_time=on_steps, prediction=VPrediction())
  loss, _ = objective(predict, batch, key)
  x, time = seen[0]
  k = np.round((1 - time) * STEPS).astype(int)
  alpha, sigma = alphas()[k][:, None], sigmas()[k][:, None]
  drawn = np.asarray(jax.random.normal(jax.random.split(key, 3)[1], SHAPE), np.float64)
  data = noise().astype(np.float64)
  # A time of 24 bits moves sigma of the first steps, 0.03, by 1e-5 of it.
  np.testing.assert_allclose(x, alpha * data + sigma * drawn, atol=1e-5)
  error = 0.3 * x - (alpha * drawn - sigma * data)
  np.testing.assert_allclose(loss, np.mean(error**2), rtol=1e-5)


def on_steps(key, shape):
  """Times of whole steps, the last (all noise) among them."""
  return jnp.linspace(0, 0.999, 1000)[jax.random.randint(key, shape, 0, 1000)].at[0].set(0.0)


def test_at_time_zero_a_model_sees_no_data_at_all():
  data = jnp.full(SHAPE, 1e6)
  x, v = VPrediction().train(data, jnp.asarray(noise()), jnp.zeros(SHAPE[0]))
  np.testing.assert_array_equal(x, noise())
  np.testing.assert_array_equal(v, -data)  # and has to answer with the data


def test_a_schedule_is_chosen_by_name_and_held_to_its_ranges():
  made = make_prediction({'name': 'v_prediction', 'steps': 10, 'last': 0.02})
  assert made == VPrediction(steps=10, last=0.02)
  assert len(made.flow_times()) == 11
  for fields, said in (
    ({'name': 'epsilon'}, "objective.prediction.name = 'epsilon'; expected flow or v_prediction"),
    ({'name': 'v_prediction', 'steps': 1}, r'prediction\.steps = 1; expected a whole number from'),
    ({'name': 'v_prediction', 'last': 1.0}, r'prediction\.last = 1\.0; expected a finite number'),
    ({'name': 'flow', 'sigma_mim': 0}, r'did you mean objective\.prediction\.sigma_min'),
  ):
    with pytest.raises(ConfigError, match=said):
      make_prediction(fields)
  with pytest.raises(ConfigError, match='first = 0'):
    dataclasses.replace(made, first=0.0)
