"""What the autoencoder minimises alone: reconstruction and the prior (Movie Gen §3.1.1)."""

import jax.numpy as jnp

from mgjax.core.typing import Array, Batch, Float, Key, Metrics, Objective, Predict
from mgjax.tae.autoencoder import Posterior


def reconstruction_loss(
  video: Float[Array, 'b t h w c'], reconstruction: Float[Array, 'b t h w c']
) -> Float[Array, '']:
  """mean |x - y|, the report's L1 reconstruction loss, in float32."""
  return jnp.mean(jnp.abs(video.astype(jnp.float32) - reconstruction.astype(jnp.float32)))


def prior_divergence(posterior: Posterior) -> Float[Array, '']:
  """mean over latent numbers of KL(q(z | x) || N(0, 1)) = (m^2 + exp(v) - v - 1) / 2."""
  mean = posterior.mean.astype(jnp.float32)
  log_variance = posterior.log_variance.astype(jnp.float32)
  return 0.5 * jnp.mean(mean * mean + jnp.exp(log_variance) - log_variance - 1)


def make_objective(*, squared_weight: float = 0.0, prior_weight: float = 1e-6) -> Objective:
  """Makes loss = L1 + squared_weight * MSE + prior_weight * KL.

  Args:
    squared_weight: of the mean squared error; 0 is the report's loss. L1 alone wants the median,
      which is background wherever a small bright thing *may* be: it learns thin strokes on black
      an order of magnitude more slowly.
    prior_weight: of the mean over latent numbers; not in public sources. HunyuanVideo's 1e-6 may
      be of a sum over a video, which is far stronger.

  Returns:
    objective(predict, batch, key); `predict(video, key)` is the autoencoder, `batch['video']` holds
    pixels in [-1, 1].
  """

  def objective(predict: Predict, batch: Batch, key: Key) -> tuple[Float[Array, ''], Metrics]:
    video = batch['video']
    reconstruction, posterior = predict(video, key)
    distance = reconstruction_loss(video, reconstruction)
    difference = video.astype(jnp.float32) - reconstruction.astype(jnp.float32)
    squared = jnp.mean(difference * difference)
    divergence = prior_divergence(posterior)
    loss = distance + squared_weight * squared + prior_weight * divergence
    # Pixels span 2, so the peak signal is 2: psnr = 10 log10(4 / mse).
    psnr = 10 * jnp.log10(4 / jnp.maximum(squared, 1e-10))
    return loss, {'loss': loss, 'l1': distance, 'kl': divergence, 'psnr': psnr}

  return objective
