"""A mean velocity is learnt as the velocity that its derivative along the path makes of it."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mgjax.core.errors import ConfigError
from mgjax.flow.distillation.few_steps import STEP_SIZE
from mgjax.flow.distillation.mean_flow import MeanFlow, make_mean_flow
from mgjax.flow.times import make_sampler

ROWS, NUMBERS, MEAN, WIDTH = 512, 64, 0.7, 0.3
TIMES = make_sampler(name='logit_normal', mean=0.0, std=1.0)


def batch():
  rows = np.random.default_rng(0).normal(MEAN, WIDTH, (ROWS, NUMBERS))
  return {'latents': jnp.asarray(rows, jnp.float32)}


def level(time):
  return jnp.sqrt((WIDTH * time) ** 2 + (1 - time) ** 2)


def answers(scale=1.0, seen=None):
  """The mean velocity of one Gaussian, whose path is known: all of X_t goes with its level."""

  def predict(x, time, given, drop):
    time, step = time[:, None], given[STEP_SIZE][:, None]
    safe = jnp.maximum(step, 1e-6)
    after = MEAN * (time + safe) + level(time + safe) / level(time) * (x - MEAN * time)
    rate = (WIDTH**2 * time - (1 - time)) / level(time) ** 2
    here = MEAN + rate * (x - MEAN * time)
    if seen is not None:
      seen.append((x, time, here))
    return scale * jnp.where(step > 1e-6, (after - x) / safe, here)

  return predict


def loss_of(predict, **fields):
  objective = make_mean_flow(
    MeanFlow(power=0.0, **fields), dropout={}, conditions=(), sample_time=TIMES
  )
  return float(objective(predict, batch(), jax.random.key(0))[0])


@pytest.mark.parametrize('every', [1, 4])
def test_the_known_mean_velocity_of_a_gaussian_has_the_loss_of_its_velocity(every):
  seen = []
  found = loss_of(answers(seen=seen), every=every)
  x, time, velocity = (np.asarray(each, np.float64) for each in seen[0])
  data = np.asarray(batch()['latents'], np.float64)
  pair = data - (x - time * data) / (1 - time)
  # X_t in float32 gives noise back with errors of eps / (1 - t), for t up to .99 of 512 rows.
  assert found == pytest.approx(np.mean((velocity - pair) ** 2), rel=2e-3)


@pytest.mark.parametrize('scale', [0.9, 1.1])
def test_another_answer_has_a_larger_loss(scale):
  assert loss_of(answers(scale)) > 1.01 * loss_of(answers())


def test_a_derivative_moves_a_row_no_further_than_the_size_of_its_velocity():
  def wild(x, time, given, drop):
    return 1.5 + 0.01 * jnp.sin(1e6 * given[STEP_SIZE])[:, None] * jnp.ones_like(x)

  pair = np.sqrt(MEAN**2 + WIDTH**2 + 1)  # root mean square of data less noise
  assert loss_of(wild, every=1) < (2 * 1.51 + 1.02 * pair) ** 2


def test_guidance_moves_the_pair_by_what_the_condition_changes():
  def predict(x, time, given, drop):
    return jnp.where(drop['text'], 0.25, 1.5)[:, None] * jnp.ones_like(x)

  make = lambda scale: make_mean_flow(  # noqa: E731
    MeanFlow(guidance=scale, power=0.0),
    dropout={'text': 1e-9},
    conditions=('text',),
    sample_time=TIMES,
  )
  plain, guided = (make(scale)(predict, batch(), jax.random.key(0))[0] for scale in (1.0, 4.0))
  data = batch()['latents']
  noise = jax.random.normal(jax.random.split(jax.random.key(0), 4)[2], data.shape, jnp.float32)
  pair = np.asarray(data - (1 - 1e-5) * noise, np.float64)
  assert float(plain) == pytest.approx(np.mean((1.5 - pair) ** 2), rel=1e-5)
  assert float(guided) == pytest.approx(np.mean((1.5 - pair - 0.75 * 1.25) ** 2), rel=1e-5)


def test_guidance_to_nothing_that_is_ever_dropped_is_refused():
  with pytest.raises(ConfigError, match=r'guidance = 2, but .* a rate above 0'):
    make_mean_flow(MeanFlow(guidance=2.0), dropout={'text': 0.0}, conditions=(), sample_time=TIMES)
