"""libtpu and the flags of the CPU's compiler, in one process."""

import jax
import jax.numpy as jnp
import pytest


@pytest.fixture(autouse=True)
def without_flags_of_the_cpu(monkeypatch):
  """Hides XLA_FLAGS from libtpu, which ends the process at a flag that it does not know."""
  jax.jit(jnp.negative)(1.0)  # for the CPU they are read, once, by the first compilation
  monkeypatch.delenv('XLA_FLAGS', raising=False)
