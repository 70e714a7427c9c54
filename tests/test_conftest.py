"""The ground is as strict as it says."""

import jax
import jax.numpy as jnp
import jaxtyping
import pytest

from mgjax.conditioning import ports


@pytest.mark.skipif(jax.default_backend() != 'cpu', reason='MGJAX_TEST_PLATFORMS asks for others')
def test_there_are_eight_devices():
  assert jax.device_count() == 8


def test_a_silent_broadcast_raises():
  with pytest.raises(ValueError, match='rank_promotion'):
    jnp.ones((2, 3)) + jnp.ones(3)


def test_a_wrong_type_raises():
  with pytest.raises(jaxtyping.TypeCheckError):
    ports.combine(3)


def test_a_flax_dataclass_may_hold_what_jax_puts_there():
  shapes = jax.tree.map(jnp.shape, ports.Ports(tokens=jnp.ones((1, 2, 3))))
  assert shapes.tokens == (1, 2, 3)
