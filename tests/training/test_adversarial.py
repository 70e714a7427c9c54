"""A step of two players: who sees what, when the discriminator rests, and that runs resume."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from mgjax.core.typing import Critic
from mgjax.models.tae.autoencoder import Posterior
from mgjax.models.tae.objective import (
  LossWeights,
  make_adversarial_objective,
  make_discriminator_objective,
  make_objective,
)
from mgjax.nn.linear import ZEROS, parameter
from mgjax.training.adversarial import make_adversarial_step
from mgjax.training.settings import OptimizerSettings
from mgjax.training.spec import Adversary
from mgjax.training.state import start_discriminator, start_state
from tests import tiny

RATE = 0.25  # a power of two: products with it are exact
EPS = float(np.finfo(np.float32).eps)


class Number(nn.Module):
  """A model of one number a: y = a x."""

  @nn.compact
  def __call__(self, x):
    return parameter(self, 'a', ZEROS, ('channels',), (1,))[0] * x


def generator_objective(predict, batch, key, judge):
  """The model wants its result large, and what the discriminator says of it small."""
  y = predict(batch['x'])
  loss = jnp.mean(-y + judge.active * judge.predict(y))
  return loss, {'loss': loss}, jax.lax.stop_gradient(y)


def opposing(predict, batch, made, key):
  return jnp.mean(predict(made - batch['x'])), {'opponent_loss': jnp.mean(predict(made))}


def play(steps, *, start=0, accumulate=1, a=1.0, b=2.0):
  settings = OptimizerSettings(learning_rate=RATE)
  discriminator = Adversary(
    Number(), (jnp.ones(1),), generator_objective, opposing, settings, start
  )
  sgd = optax.sgd(RATE)
  step = make_adversarial_step(
    Number(), discriminator, sgd, sgd, seed=0, decay=0.9, accumulate=accumulate
  )
  params, others = ({'a': jnp.asarray([value])} for value in (a, b))
  state = start_state(params, sgd, start_discriminator(others, sgd))
  batch = {'x': jnp.asarray([1.0, 2.0, 3.0, 6.0])}  # their mean is 3
  found = []
  for _ in range(steps):
    state, metrics = jax.jit(step)(state, batch)
    found.append((float(state.params['a'][0]), float(state.discriminator['params']['a'][0])))
  return found, metrics


def by_hand(steps, start=0, a=1.0, b=2.0):
  """d/da mean(-a x + b a x) = 3 (b - 1); d/db mean(b (a x - x)) = 3 (a - 1)."""
  found = []
  for number in range(steps):
    active = number >= start
    a, b = a - RATE * 3 * (active * b - 1), b - active * RATE * 3 * (a - 1)
    found.append((a, b))
  return found


@pytest.mark.parametrize('start', [0, 2])
def test_both_step_from_where_both_were(start):
  found, metrics = play(4, start=start)
  assert found == by_hand(4, start)
  assert {'loss', 'opponent_loss', 'gradient_norm', 'discriminator_gradient_norm'} <= set(metrics)


def test_parts_of_a_batch_add_up_to_it_for_both():
  assert play(2, accumulate=2)[0] == play(2)[0]


VIDEO = jnp.asarray(np.random.default_rng(0).uniform(-1, 1, (1, 2, 4, 4, 3)), jnp.float32)


def losses_of(weights, active):
  """Loss and its gradient by a factor on the reconstruction, and that of its written-out form."""
  latents = jnp.zeros((1, 1, 1, 1, 2))
  judge = Critic(lambda video: (jnp.sin(3 * video).mean(-1, keepdims=True),), jnp.asarray(active))
  key = jax.random.key(0)

  def predict(factor):
    return lambda video, key: (factor * video**2, Posterior(latents, latents))

  def found(factor):
    objective = make_adversarial_objective(weights)
    return objective(predict(factor), {'video': VIDEO}, key, judge)[0]

  def written(factor):
    made = jax.lax.stop_gradient(factor) * VIDEO**2
    plain = make_objective(weights)

    def distance(y):
      return plain(lambda video, key: (y, Posterior(latents, latents)), {'video': VIDEO}, key)[0]

    def adversarial(y):
      return -jnp.mean(judge.predict(y)[0])

    ratio = jnp.linalg.norm(jax.grad(distance)(made)) / jnp.linalg.norm(jax.grad(adversarial)(made))
    scale = weights.adversarial * (ratio if weights.adaptive else 1) * active
    return distance(factor * VIDEO**2) + scale * adversarial(factor * VIDEO**2)

  return (jax.value_and_grad(f)(0.7) for f in (found, written))


@pytest.mark.parametrize('adaptive', [True, False])
@pytest.mark.parametrize('active', [True, False])
def test_the_autoencoder_minimises_the_loss_as_it_is_written(adaptive, active):
  weights = LossWeights(mse=2.0, adversarial=0.3, adaptive=adaptive)
  found, written = losses_of(weights, active)
  # Sums over 96 numbers of size 1, in another order.
  np.testing.assert_allclose(found, written, rtol=96 * EPS)


def test_the_discriminator_tells_originals_from_reconstructions():
  objective = make_discriminator_objective(LossWeights(gradient_penalty=0.5))
  loss, metrics = objective(
    lambda video: (video.mean(-1, keepdims=True),),
    {'video': jnp.ones_like(VIDEO)},
    -jnp.ones_like(VIDEO),
    jax.random.key(0),
  )
  # D(x) = 1 and D(y) = -1 are beyond both hinges; what is left is the penalty on 32 logits.
  assert float(metrics['discriminator_gap']) == 2
  assert 0 < float(loss) < 0.5


ADVERSARIAL = {
  'objective__adversarial': 0.1,
  'objective__outlier': 1.0,
  'discriminator__widths': (8,),
  'discriminator__groups': 4,
  'discriminator__start': 2,
  'discriminator__optimizer__warmup': 2,
}


@pytest.mark.slow
def test_a_run_of_two_resumes_bit_by_bit(tmp_path):
  config = tiny.autoencoder(**ADVERSARIAL, train__steps=5, train__save_every=2)
  whole = tiny.resumed(config, tmp_path, 3)
  assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(whole.discriminator))
  rows = [row for row in tiny.metrics(tmp_path / 'whole') if 'discriminator_loss' in row]
  assert [row['adversarial_weight'] > 0 for row in rows] == [False, False, True, True, True]
