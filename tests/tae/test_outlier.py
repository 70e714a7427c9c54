"""The outlier penalty against its formula."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mgjax.tae.outlier import outlier_penalty

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


def test_frames_are_judged_one_by_one():
  latents = jnp.asarray(latents_with_dots())
  folded = latents.reshape(6, 1, 5, 6, 4)
  assert float(outlier_penalty(latents)) == float(outlier_penalty(folded))


def test_latents_within_three_deviations_cost_nothing():
  # Of 9 places none can be further than sqrt(9 - 1) < 3 deviations from their mean.
  latents = np.random.default_rng(1).normal(size=(1, 2, 3, 3, 4)).astype(np.float32) ** 3
  assert float(outlier_penalty(jnp.asarray(latents))) == 0


def test_constant_latents_cost_nothing_and_have_no_gradient():
  constant = jnp.full((1, 2, 5, 5, 4), 7.0)
  value, gradient = jax.value_and_grad(outlier_penalty)(constant)
  assert float(value) == 0
  assert not np.asarray(gradient).any()


def test_gradient_pulls_the_dot_back():
  latents = jnp.asarray(latents_with_dots())
  gradient = jax.grad(outlier_penalty)(latents)
  assert np.isfinite(gradient).all()
  assert (np.asarray(gradient[0, 1, 2, 3]) > 0).all() and (
    np.asarray(gradient[1, 2, 0, 0]) < 0
  ).all()
