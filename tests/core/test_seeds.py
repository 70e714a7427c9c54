"""Every seed from 0 to 2^63 - 1 has noise of its own, and small ones that of `jax.random.key`."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mgjax.core.errors import ConfigError
from mgjax.core.seeds import key_of, seed_words
from mgjax.flow.frame_noise import frame_noise
from mgjax.models.flow_model.initial_noise import draw, draw_noise, seeds_of

APART = [0, 1, 2**31 - 1, 2**31, 2**32 - 1, 2**32, 2**32 + 1, 2**33, 2**63 - 2**32, 2**63 - 1]


@pytest.mark.parametrize('seed', [0, 7, 2**31 - 1])
def test_a_small_seed_has_the_key_of_jax(seed):
  found = jax.random.key_data(key_of(jnp.asarray(seed_words(seed))))
  assert (found == jax.random.key_data(jax.random.key(seed))).all()


def test_each_seed_has_noise_of_its_own():
  for make in (
    lambda seed: draw_noise(seed, np.arange(1), (1, 1, 1, 4)),
    lambda seed: frame_noise(seed, np.arange(1), 0, 1, (4,)),
  ):
    found = {np.asarray(make(seed)).tobytes() for seed in APART}
    assert len(found) == len(APART)
  several = np.asarray(draw(*seeds_of(APART, np.zeros(len(APART), int)), shape=(1, 1, 1, 4)))
  alone = [np.asarray(draw_noise(seed, np.zeros(1, int), (1, 1, 1, 4)))[0] for seed in APART]
  assert (several == alone).all()


@pytest.mark.parametrize('seed', [-1, 2**63, 1.5, True, '3', [0, -1]])
def test_another_seed_is_refused(seed):
  with pytest.raises(
    ConfigError, match=r'seed = .*expected a whole number from 0 to 92233720368547'
  ):
    seed_words(seed)
