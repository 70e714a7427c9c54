"""Objectives of the audio codec and of its discriminators (Movie Gen §6)."""

import dataclasses
from typing import Annotated

import jax
import jax.numpy as jnp

from mgjax.core.settings import Checked, Magnitude, Range
from mgjax.core.typing import Batch, Critic, Float, Key, Metrics, Objective, Predict
from mgjax.models.codec.losses import (
  SPECTRAL_FLOOR,
  adversarial_loss,
  discriminator_loss,
  feature_distance,
  mel_distance,
  stft_distance,
  waveform_distance,
)
from mgjax.models.codec.model import CODEC_RATE, Posterior, kl


@dataclasses.dataclass(frozen=True)
class LossWeights(Checked):
  """Weights of the loss terms; the defaults are those of DAC, from whose code the paper's came."""

  mel: Magnitude = 15.0
  features: Magnitude = 2.0
  adversarial: Magnitude = 1.0  # of the adversarial loss; 0 trains without discriminators
  # Of the mean squared error of samples, which DAC does not have; without it, training on audio
  # with much digital silence collapses to silence.
  mse: Magnitude = 0.0
  spectral_floor: Annotated[float, Range(above=0)] = SPECTRAL_FLOOR  # of the mel distance
  # Of the KL to N(0, 1), to which the codec is said not to be sensitive; the value is that of
  # Stable Audio, for the same formula.
  kl: Magnitude = 1e-4


def make_objective(weights: LossWeights, rate: int = CODEC_RATE) -> Objective:
  """Makes loss = mel D_mel + mse mean (x - y)^2 + kl KL, with x = `batch['audio']` (b s c).

  It is objective(predict, batch, key), where `predict(sound, key)` is the codec.
  """

  def objective(predict: Predict, batch: Batch, key: Key) -> tuple[Float[jax.Array, ''], Metrics]:
    return _distances(weights, rate, batch, *predict(batch['audio'], key))

  return objective


def make_adversarial_objective(weights: LossWeights, rate: int = CODEC_RATE):
  """Makes the loss of `make_objective` + features D_feature + adversarial sum_k (1 - D_k(y))^2.

  It is objective(predict, batch, key, critic) -> loss, metrics and the reconstructions, for the
  discriminators. While `critic.active` is 0 they do not count.
  """

  def objective(
    predict: Predict, batch: Batch, key: Key, critic: Critic
  ) -> tuple[Float[jax.Array, ''], Metrics, Float[jax.Array, 'b s c']]:
    reconstruction, posterior = predict(batch['audio'], key)
    loss, metrics = _distances(weights, rate, batch, reconstruction, posterior)
    real = critic.predict(batch['audio'])
    fake = critic.predict(reconstruction)
    features = feature_distance(real, fake)
    critic_loss = adversarial_loss(fake)
    loss = loss + critic.active * (weights.features * features + weights.adversarial * critic_loss)
    metrics = metrics | {'loss': loss, 'features': features, 'generator_loss': critic_loss}
    return loss, metrics, jax.lax.stop_gradient(reconstruction)

  return objective


def make_discriminator_objective():
  """Makes `objective(predict, batch, reconstruction, key) -> (loss, metrics)` of discriminators."""

  def objective(
    predict: Predict, batch: Batch, reconstruction: Float[jax.Array, 'b s c'], key: Key
  ) -> tuple[Float[jax.Array, ''], Metrics]:
    del key
    real = predict(batch['audio'])
    fake = predict(reconstruction)
    loss = discriminator_loss(real, fake)
    gaps = [jnp.mean(x) - jnp.mean(y) for (_, x), (_, y) in zip(real, fake, strict=True)]
    return loss, {'discriminator_loss': loss, 'discriminator_gap': sum(gaps) / len(gaps)}

  return objective


def _distances(
  weights: LossWeights, rate: int, batch: Batch, reconstruction: jax.Array, posterior: Posterior
) -> tuple[Float[jax.Array, ''], Metrics]:
  sound = batch['audio']
  mel = mel_distance(sound, reconstruction, rate, weights.spectral_floor)
  divergence = kl(posterior)
  squared = jnp.mean((sound - reconstruction) ** 2)
  loss = weights.mel * mel + weights.mse * squared + weights.kl * divergence
  distances = {
    'mel': mel,
    'mse': squared,
    'kl': divergence,
    'stft': stft_distance(sound, reconstruction),
    'waveform': waveform_distance(sound, reconstruction),
  }
  return loss, {'loss': loss, **jax.lax.stop_gradient(distances)}
