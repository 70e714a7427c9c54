"""Objectives of the autoencoder and of its discriminator (Movie Gen §3.1.1)."""

import dataclasses

import jax
import jax.numpy as jnp

from mgjax.core.settings import Checked, Magnitude
from mgjax.core.typing import Array, Batch, Critic, Float, Key, Metrics, Objective, Predict, Tree
from mgjax.models.tae.autoencoder import Posterior
from mgjax.models.tae.discriminator import generator_loss, gradient_penalty, hinge_loss
from mgjax.models.tae.outlier import outlier_penalty
from mgjax.models.tae.perceptual import Perceptual

_LARGEST = 1e4  # adaptive weight, as Esser et al. (2021) have it


@dataclasses.dataclass(frozen=True)
class LossWeights(Checked):
  """Weights of the terms beside L1; none of them but the outlier penalty's is in public sources.

  Attributes:
    mse: of the mean squared error; 0 is the paper's loss. L1 alone wants the median, which is
      background wherever a small bright thing *may* be: it learns thin strokes on black an order of
      magnitude more slowly.
    kl: of the mean over latent numbers of KL(q(z | x) || N(0, 1)). HunyuanVideo's 1e-6 may be of
      a sum over a video, which is far stronger.
    perceptual: of LPIPS; 0.1 for HunyuanVideo.
    outlier: of the outlier penalty; 1e5 in the paper.
    outlier_sigmas: r of the outlier penalty; 3 in the paper.
    adversarial: of the discriminator's judgement; 0.05 for HunyuanVideo.
    adaptive: whether that weight is relative: the gradients that pixels get from the discriminator
      are first made as long as those they get from the distances to the original. Esser et al.
      (2021) compare them at the last layer, which needs a second pass through the decoder.
    gradient_penalty: of R1, for the discriminator.
  """

  mse: Magnitude = 0.0
  kl: Magnitude = 1e-6
  perceptual: Magnitude = 0.0
  outlier: Magnitude = 0.0
  outlier_sigmas: Magnitude = 3.0
  adversarial: Magnitude = 0.0
  adaptive: bool = True
  gradient_penalty: Magnitude = 0.0


def reconstruction_loss(
  video: Float[Array, 'b t h w c'], reconstruction: Float[Array, 'b t h w c']
) -> Float[Array, '']:
  """mean |x - y|, the paper's L1 reconstruction loss, in float32."""
  return jnp.mean(jnp.abs(video.astype(jnp.float32) - reconstruction.astype(jnp.float32)))


def prior_divergence(posterior: Posterior) -> Float[Array, '']:
  """mean over latent numbers of KL(q(z | x) || N(0, 1)) = (m^2 + exp(v) - v - 1) / 2."""
  mean = posterior.mean.astype(jnp.float32)
  log_variance = posterior.log_variance.astype(jnp.float32)
  return 0.5 * jnp.mean(mean * mean + jnp.exp(log_variance) - log_variance - 1)


def make_objective(weights: LossWeights, perceptual: Perceptual | None = None) -> Objective:
  """Makes loss = L1 + mse MSE + perceptual LPIPS + kl KL + outlier OPL.

  It is objective(predict, batch, key, lpips=None): `predict(video, key)` is the autoencoder,
  `batch['video']` holds pixels in [-1, 1], `lpips` the parameters of `perceptual`.
  """
  distance = _make_distance(weights, perceptual)
  latent_loss = _make_latent_loss(weights)

  def objective(
    predict: Predict, batch: Batch, key: Key, lpips: Tree = None
  ) -> tuple[Float[Array, ''], Metrics]:
    reconstruction, posterior = predict(batch['video'], key)
    value, metrics = distance(reconstruction, batch['video'], lpips)
    extra, more = latent_loss(posterior)
    return value + extra, {'loss': value + extra, **metrics, **more}

  return objective


def make_adversarial_objective(weights: LossWeights, perceptual: Perceptual | None = None):
  """Makes the loss of `make_objective` + adversarial * (-mean D(y)), for `training/adversarial.py`.

  It is objective(predict, batch, key, critic, lpips=None) -> loss, metrics and the reconstructions,
  for the discriminator. While `critic.active` is 0 it does not count.
  """
  distance = _make_distance(weights, perceptual)
  latent_loss = _make_latent_loss(weights)

  def objective(
    predict: Predict, batch: Batch, key: Key, critic: Critic, lpips: Tree = None
  ) -> tuple[Float[Array, ''], Metrics, Float[Array, 'b t h w c']]:
    reconstruction, posterior = predict(batch['video'], key)
    fixed_reconstruction = jax.lax.stop_gradient(reconstruction)
    differentiate = jax.value_and_grad(distance, has_aux=True)
    (value, metrics), pull = differentiate(fixed_reconstruction, batch['video'], lpips)
    critic_loss, push = jax.value_and_grad(lambda video: generator_loss(critic.predict(video)))(
      fixed_reconstruction
    )
    scale = jnp.minimum(_length(pull) / (_length(push) + 1e-8), _LARGEST) if weights.adaptive else 1
    weight = weights.adversarial * scale * critic.active
    value = value + weight * critic_loss
    extra, more = latent_loss(posterior)
    # The gradient by pixels is known, so one backward pass through the decoder is enough.
    loss = _with_gradient(reconstruction, value, pull + weight * push) + extra
    metrics = {
      'loss': loss,
      **metrics,
      **more,
      'generator_loss': critic_loss,
      'adversarial_weight': weight,
    }
    return loss, metrics, fixed_reconstruction

  return objective


def make_discriminator_objective(weights: LossWeights):
  """Makes loss = hinge + gradient_penalty / 2 * R1.

  It is objective(predict, batch, reconstruction, key) -> loss and metrics.
  """

  def objective(
    predict: Predict, batch: Batch, reconstruction: Float[Array, 'b t h w c'], key: Key
  ) -> tuple[Float[Array, ''], Metrics]:
    real = predict(batch['video'])
    fake = predict(reconstruction)
    loss = hinge_loss(real, fake)
    if weights.gradient_penalty:
      loss = loss + weights.gradient_penalty / 2 * gradient_penalty(
        predict, batch['video'], real, key
      )
    gap = sum(jnp.mean(x) - jnp.mean(y) for x, y in zip(real, fake, strict=True)) / len(real)
    return loss, {'discriminator_loss': loss, 'discriminator_gap': gap}

  return objective


def _make_distance(weights: LossWeights, perceptual: Perceptual | None):
  def distance(
    reconstruction: Float[Array, 'b t h w c'], video: Float[Array, 'b t h w c'], lpips: Tree
  ) -> tuple[Float[Array, ''], Metrics]:
    absolute = reconstruction_loss(video, reconstruction)
    difference = video.astype(jnp.float32) - reconstruction.astype(jnp.float32)
    squared = jnp.mean(difference * difference)
    # Pixels span 2, so the peak signal is 2: psnr = 10 log10(4 / mse).
    psnr = 10 * jnp.log10(4 / jnp.maximum(squared, 1e-10))
    value = absolute + weights.mse * squared
    metrics = {'l1': absolute, 'psnr': psnr}
    if perceptual is not None:
      distant = jnp.mean(perceptual.apply({'params': lpips}, video, reconstruction))
      value = value + weights.perceptual * distant
      metrics = {**metrics, 'lpips': distant}
    return value, metrics

  return distance


def _make_latent_loss(weights: LossWeights):
  def latent_loss(posterior: Posterior) -> tuple[Float[Array, ''], Metrics]:
    divergence = prior_divergence(posterior)
    outliers = outlier_penalty(posterior.mean, weights.outlier_sigmas)
    value = weights.kl * divergence + weights.outlier * outliers
    return value, {'kl': divergence, 'outliers': outliers}

  return latent_loss


def _length(x: Array) -> Float[Array, '']:
  return jnp.sqrt(jnp.sum(x.astype(jnp.float32) ** 2))


def _with_gradient(x: Array, value: Float[Array, ''], gradient: Array) -> Float[Array, '']:
  """Returns `value`, with `gradient` as its derivative by x."""
  moved = jnp.sum(jax.lax.stop_gradient(gradient) * (x - jax.lax.stop_gradient(x)))
  return jax.lax.stop_gradient(value) + moved
