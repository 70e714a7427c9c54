"""Euler as diffusers steps it, and as ours does: the same latents of the same velocity."""

import jax.numpy as jnp
import numpy as np
import pytest

from mgjax.flow.sample import sample
from mgjax.flow.schedules import make_time_grid

pytestmark = pytest.mark.oracle


def test_diffusers_and_our_loop_end_at_the_same_latents():
  torch = pytest.importorskip('torch')
  pytest.importorskip('diffusers')
  from tests.oracles.diffusers_sampler import make_loop

  times = make_time_grid(name='linear_quadratic', emulated=1000, steps=12)
  noise = np.random.default_rng(0).normal(size=(2, 1, 3, 3, 4)).astype(np.float32)
  theirs = make_loop(lambda x, time: torch.sin(3 * x) + time, torch.tensor(noise), times.tolist())
  ours = sample(
    lambda x, time: jnp.sin(3 * x) + time.reshape(-1, 1, 1, 1, 1), jnp.asarray(noise), times
  )
  # Twelve steps of float32, each rounded in another order.
  np.testing.assert_allclose(theirs(None).numpy(), ours, atol=1e-5)
  assert not np.allclose(theirs(1).numpy(), ours, atol=1e-2)
