"""The discriminators: what a patch sees, and the losses of both players."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mgjax.models.tae.discriminator import (
  Discriminator,
  generator_loss,
  gradient_penalty,
  hinge_loss,
)
from tests.random_parameters import random_parameters

EPS = float(np.finfo(np.float32).eps)
MODEL = Discriminator(widths=(4, 8), groups=4)


def video(seed=0):
  return jnp.asarray(np.random.default_rng(seed).uniform(-1, 1, (2, 9, 16, 16, 3)), jnp.float32)


def judge(x):
  params = random_parameters(MODEL.init, x)
  return jax.jit(MODEL.apply)({'params': params}, x)


def test_one_judges_frames_the_other_a_few_frames_in_a_row():
  frames, videos = judge(video())
  assert frames.shape == videos.shape == (2, 9, 4, 4, 1)
  changed_frames, changed_videos = judge(video().at[:, 4].add(0.5))
  seen = np.asarray(frames != changed_frames).any((0, 2, 3, 4))
  assert seen.tolist() == [index == 4 for index in range(9)]
  seen = np.asarray(videos != changed_videos).any((0, 2, 3, 4))
  assert seen.tolist() == [abs(index - 4) <= 2 for index in range(9)]


def test_losses_are_their_formulas():
  rng = np.random.default_rng(0)
  real, fake = ([rng.normal(size=(2, 3, n, n, 1)).astype(np.float32) for n in (4, 2)] for _ in '12')
  exact = np.mean(
    [
      (np.maximum(0, 1 - np.float64(x)).mean() + np.maximum(0, 1 + np.float64(y)).mean()) / 2
      for x, y in zip(real, fake, strict=True)
    ]
  )
  arrays = [jnp.asarray(x) for x in real], [jnp.asarray(y) for y in fake]
  assert float(hinge_loss(*arrays)) == pytest.approx(exact, rel=100 * EPS)
  exact = -np.mean([np.float64(y).mean() for y in fake])
  assert float(generator_loss(arrays[1])) == pytest.approx(exact, rel=100 * EPS, abs=100 * EPS)


def test_the_gradient_penalty_is_the_squared_gradient_of_a_linear_judge():
  """Of D(x) = <w, x> the differences are exact, and their mean square goes to |w|^2."""
  x = video()[:, :1, :2, :2]
  slope = jnp.asarray(np.random.default_rng(1).normal(size=x.shape[1:]), jnp.float32)

  def linear(x):
    return (jnp.sum(x * slope[None], axis=(1, 2, 3, 4))[:, None, None, None, None],)

  draw = jax.jit(lambda key: gradient_penalty(linear, x, linear(x), key))
  found = np.mean([float(draw(jax.random.key(seed))) for seed in range(500)])
  exact = float(jnp.sum(slope**2))
  # 1,000 squares of normal numbers: the mean's relative error is sqrt(2 / 1000); five times that.
  assert found == pytest.approx(exact, rel=5 * np.sqrt(2 / 1000))
