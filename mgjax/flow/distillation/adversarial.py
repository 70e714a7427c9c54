"""Sampling in a few steps, trained against a discriminator of data, checked by
tests/flow/distillation/test_adversarial.py.

It follows Lin et al. 2025, "Diffusion Adversarial Post-Training for One-Step Video Generation", and
Huang et al. 2024, "The GAN is dead; long live the GAN!".

A student takes the steps of a grid from noise up to a random one, and then goes straight to a
sample, as in `distribution_matching`. A discriminator D(x, c) maps latents x under conditions c to
a logit. The logit is the sum of its outputs over all elements, divided by the root of their number,
so that a few elements with content are not averaged away. With data x, the student's samples y of
the same conditions, and other rows' conditions c':

  student:        mean softplus(D(x, c) - D(y, c))
  discriminator:  mean softplus(D(y, c) - D(x, c)) + mismatch mean softplus(D(x, c') - D(x, c))
                  + penalty / 2 mean (|dD/dx|^2 + |dD/dy|^2)

The second term trains D to use conditions (Reed et al. 2016): a sample that does not match them is
no better than a false one. So data correct the teacher's errors, unlike in objectives that only
follow the teacher.
"""

import dataclasses
import math
from collections.abc import Sequence

import jax
import jax.numpy as jnp

from mgjax.core.settings import Magnitude
from mgjax.core.typing import Array, Batch, Critic, Float, Key, Metrics, Predict, Tree
from mgjax.flow.distillation.distribution_matching import Simulated, Steps, make_simulate

_SMALL = 0.02  # standard deviation of the noise in finite differences of D, relative to latents


@dataclasses.dataclass(frozen=True, kw_only=True)
class Adversarial(Simulated):
  """`config.objective.adversarial`: trains samples instead of the velocity.

  Validation asks the teacher how likely samples are. `config.start_from` should be a student of few
  steps. `config.discriminator` has the fields in which its network differs from `config.model`.

  Attributes:
    penalty: of gradients of the discriminator, at data and at samples.
    mismatch: weight of data under other rows' conditions.
  """

  steps: Steps = (4,)
  penalty: Magnitude = 0.5
  mismatch: Magnitude = 1.0


def make_adversarial(adversarial: Adversarial):
  """Makes the student's `objective(predict, batch, key, judge) -> (loss, metrics, samples)`.

  The discriminator learns to tell `samples` from the `latents` of the batch.
  """
  simulate = make_simulate(adversarial)

  def objective(
    predict: Predict, batch: Batch, key: Key, judge: Critic, teacher: Tree = None
  ) -> tuple[Array, Metrics, Array]:
    samples = simulate(predict, batch, batch['latents'].shape, key)
    real, fake = _logits(judge.predict, [(batch['latents'], batch), (samples, batch)])
    loss = jnp.mean(jax.nn.softplus(real - fake))
    return loss * judge.active, {'loss': loss}, jax.lax.stop_gradient(samples)

  return objective


def make_discriminator_objective(adversarial: Adversarial):
  """Makes the discriminator's `objective(predict, batch, samples, key) -> (loss, metrics)`.

  Gradient norms are estimated by differences, without second derivatives: (D(x + s e) - D(x)) / s
  with e ~ N(0, 1) has the expected square |dD/dx|^2 (Lin et al. 2025).
  """

  def objective(predict: Predict, batch: Batch, samples: Array, key: Key) -> tuple[Array, Metrics]:
    clips = [batch['latents'].astype(jnp.float32), samples]
    perturbed = [
      x + _SMALL * jax.random.normal(noise, x.shape, jnp.float32)
      for x, noise in zip(clips, jax.random.split(key), strict=True)
    ]
    others = jax.tree.map(lambda array: jnp.roll(array, 1, axis=0), batch)
    inputs = [*((x, batch) for x in (*clips, *perturbed)), (clips[0], others)]
    real, fake, *near, mismatched = _logits(predict, inputs)
    adversarial_loss = jnp.mean(jax.nn.softplus(fake - real))
    mismatch_loss = jnp.mean(jax.nn.softplus(mismatched - real))
    slopes = sum(
      jnp.mean(jnp.square((n - at) / _SMALL)) for n, at in zip(near, (real, fake), strict=True)
    )
    loss = (
      adversarial_loss + adversarial.mismatch * mismatch_loss + adversarial.penalty / 2 * slopes
    )
    terms = {'': loss, '/apart': adversarial_loss, '/read': mismatch_loss, '/slopes': slopes}
    return loss, {f'discriminator_loss{name}': value for name, value in terms.items()}

  return objective


def _logits(predict: Predict, inputs: Sequence[tuple[Array, Batch]]) -> list[Float[Array, ' b']]:
  """Returns a logit for each (clips, batch); one call, whose rows stay on their devices."""

  def interleave(*arrays: Array) -> Array:
    return jnp.stack(arrays, axis=1).reshape(-1, *arrays[0].shape[1:])

  clips, batches = zip(*inputs, strict=True)
  x = interleave(*(x.astype(jnp.float32) for x in clips))
  batch = jax.tree.map(interleave, *batches)
  answer = predict(x, jnp.ones(len(x)), batch, {}).astype(jnp.float32)
  answer = answer.reshape(-1, len(inputs), math.prod(answer.shape[1:]))
  return list(jnp.moveaxis(answer.mean(-1) * answer.shape[-1] ** 0.5, 1, 0))
