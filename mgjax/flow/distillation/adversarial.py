"""Sampling in a few steps that a discriminator cannot tell from data (after Lin et al. 2025,
"Diffusion Adversarial Post-Training for One-Step Video Generation", and Huang et al. 2024, "The GAN
is dead; long live the GAN!"), checked by tests/flow/distillation/test_adversarial.py.

A student takes the steps of a grid from noise up to one that is drawn and goes on straight to a
sample, as in `distribution_matching`. A discriminator D(x, c) gives latents x under conditions c a
logit: the sum of what it answers of each number, over the root of how many there are, so that the
few that show something count beside the many that show the ground. With data x and the student's
samples y of the same conditions, and other rows' conditions c',

  student:        mean softplus(D(x, c) - D(y, c))
  discriminator:  mean softplus(D(y, c) - D(x, c)) + mismatch mean softplus(D(x, c') - D(x, c))
                  + penalty / 2 mean (|dD/dx|^2 + |dD/dy|^2)

The second term teaches it to read (Reed et al. 2016): a sample that shows something else than it
should is no better than a false one. What a teacher draws wrongly is put right by data here, which
no objective does that follows the teacher alone.
"""

import dataclasses
import math
from collections.abc import Sequence

import jax
import jax.numpy as jnp

from mgjax.core.settings import Magnitude
from mgjax.core.typing import Array, Batch, Critic, Float, Key, Metrics, Predict, Tree
from mgjax.flow.distillation.distribution_matching import Simulated, Steps, make_simulate

_SMALL = 0.02  # of the differences that stand for a gradient, in deviations of latents


@dataclasses.dataclass(frozen=True, kw_only=True)
class Adversarial(Simulated):
  """`config.objective.adversarial`: what is learnt in place of the velocity.

  The teacher is asked by validation how likely samples are; `config.start_from` is best a student
  of few steps, and `config.discriminator` has what its network has unlike `config.model`.

  Attributes:
    penalty: of gradients of the discriminator, at data and at samples.
    mismatch: weight of data under other rows' conditions.
  """

  steps: Steps = (4,)
  penalty: Magnitude = 0.5
  mismatch: Magnitude = 1.0


def make_adversarial(adversarial: Adversarial):
  """Makes the student's `objective(predict, batch, key, judge) -> (loss, metrics, made)`.

  `made` are the samples, which the discriminator learns to tell from the `latents` of the batch.
  """
  simulate = make_simulate(adversarial)

  def objective(
    predict: Predict, batch: Batch, key: Key, judge: Critic, teacher: Tree = None
  ) -> tuple[Array, Metrics, Array]:
    made = simulate(predict, batch, batch['latents'].shape, key)
    real, fake = _logits(judge.predict, [(batch['latents'], batch), (made, batch)])
    loss = jnp.mean(jax.nn.softplus(real - fake))
    return loss * judge.active, {'loss': loss}, jax.lax.stop_gradient(made)

  return objective


def make_discriminator_objective(adversarial: Adversarial):
  """Makes the discriminator's `objective(predict, batch, made, key) -> (loss, metrics)`.

  The slopes are those of differences, which need no gradient of a gradient: (D(x + s e) - D(x)) / s
  with e ~ N(0, 1) has the expected square |dD/dx|^2 (Lin et al. 2025).
  """

  def objective(predict: Predict, batch: Batch, made: Array, key: Key) -> tuple[Array, Metrics]:
    clips = [batch['latents'].astype(jnp.float32), made]
    moved = [
      x + _SMALL * jax.random.normal(noise, x.shape, jnp.float32)
      for x, noise in zip(clips, jax.random.split(key), strict=True)
    ]
    others = jax.tree.map(lambda array: jnp.roll(array, 1, axis=0), batch)
    asked = [*((x, batch) for x in (*clips, *moved)), (clips[0], others)]
    real, fake, *near, unread = _logits(predict, asked)
    apart = jnp.mean(jax.nn.softplus(fake - real))
    read = jnp.mean(jax.nn.softplus(unread - real))
    slopes = sum(
      jnp.mean(jnp.square((n - at) / _SMALL)) for n, at in zip(near, (real, fake), strict=True)
    )
    loss = apart + adversarial.mismatch * read + adversarial.penalty / 2 * slopes
    names = {'': loss, '/apart': apart, '/read': read, '/slopes': slopes}
    return loss, {f'discriminator_loss{name}': value for name, value in names.items()}

  return objective


def _logits(predict: Predict, asked: Sequence[tuple[Array, Batch]]) -> list[Float[Array, ' b']]:
  """A logit of each clip under each batch, by one call, the rows of which stay on their devices."""

  def together(*arrays: Array) -> Array:
    return jnp.stack(arrays, axis=1).reshape(-1, *arrays[0].shape[1:])

  clips, batches = zip(*asked, strict=True)
  x = together(*(x.astype(jnp.float32) for x in clips))
  batch = jax.tree.map(together, *batches)
  answer = predict(x, jnp.ones(len(x)), batch, {}).astype(jnp.float32)
  answer = answer.reshape(-1, len(asked), math.prod(answer.shape[1:]))
  return list(jnp.moveaxis(answer.mean(-1) * answer.shape[-1] ** 0.5, 1, 0))
