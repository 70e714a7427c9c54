"""Numbers that a model is told: close ones say nearly the same, and none at all says nothing."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mgjax.models.conditioning.numbers.guidance_scale import GuidanceScale
from mgjax.models.conditioning.numbers.step_size import StepSize
from tests.random_parameters import random_parameters

LATENTS = (1, 2, 2, 3)


def told(made, *numbers):
  """The vector that it adds for each of the numbers."""
  rows = jnp.asarray(numbers, jnp.float32).reshape(len(numbers), *made.shape)
  keep = jnp.zeros(len(numbers), bool)
  init = lambda key, batch: made.init(key, batch, keep, LATENTS)  # noqa: E731
  params = random_parameters(init, {made.key: rows})
  ports = jax.jit(made.apply, static_argnums=3)({'params': params}, {made.key: rows}, keep, LATENTS)
  return np.asarray(ports.vector, np.float64)


@pytest.mark.parametrize(
  ('made', 'learnt', 'near'),
  [(GuidanceScale(16), (1.0, 4.0), 1e-3), (StepSize(16), (0.25, 1.0), 1e-4)],
  ids=['guidance_scale', 'step_size'],
)
def test_what_is_learnt_at_a_number_is_known_beside_it(made, learnt, near):
  """Both ends of what training draws: an end is told as what lies within."""
  vectors = told(made, *learnt, *(number * (1 + near) for number in learnt), 0.0)
  size = np.linalg.norm(vectors[0])
  assert size > 0 and not vectors[4].any()
  # An angle of a wave changes by at most 1000 times a change of a thousandth of a unit of ten.
  for place in range(2):
    assert np.linalg.norm(vectors[2 + place] - vectors[place]) < 0.3 * size
  assert np.linalg.norm(vectors[1] - vectors[0]) > 0.3 * size
