"""The outlier penalty against its formula."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mgjax.models.tae.outlier import outlier_penalty

EPS = float(np.finfo(np.float32).eps)


def formula(latents, deviations):
  """1 / (H W) sum_ij max(|X_ij - Mean(X)| - r |Std(X)|, 0) of every frame, in float64."""
  frames = latents.astype(np.float64).reshape(-1, *latents.shape[2:])
  total = 0
  for frame in frames:
    places = frame.reshape(-1, frame.shape[-1])
    mean, std = places.mean(0), places.std(0)
    lengths = np.sqrt(((places - mean) ** 2).sum(1))
    total += np.maximum(lengths - deviations * np.sqrt((std**2).sum()), 0).mean()
  return total / len(frames)


def latents_with_dots():
  latents = np.random.default_rng(0).normal(size=(2, 3, 5, 6, 4)).astype(np.float32)
  latents[0, 1, 2, 3] = 20
  latents[1, 2, 0, 0] = -9
  return latents


@pytest.mark.parametrize('deviations', [1.0, 3.0])
def test_penalty_is_the_formula(deviations):
  latents = latents_with_dots()
  exact = formula(latents, deviations)
  assert exact > 0
  # Means over 30 places, norms over 4 channels; the largest length is 40 times what is left of it.
  found = float(outlier_penalty(jnp.asarray(latents), deviations))
  assert found == pytest.approx(exact, rel=40 * 34 * EPS)


def test_constant_latents_cost_nothing_and_have_no_gradient():
  constant = jnp.full((1, 2, 5, 5, 4), 7.0)
  value, gradient = jax.value_and_grad(outlier_penalty)(constant)
  assert float(value) == 0
  assert not np.asarray(gradient).any()
