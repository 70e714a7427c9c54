"""Clips of solids are drawn and read by programs that run longer than they take to compile."""

import jax
import pytest

from mgjax.lab.worlds.solids import render
from mgjax.lab.worlds.solids.judges import network

OPTIMIZED = {'xla_backend_optimization_level': 1}  # of LLVM; tests/conftest.py asks for none


@pytest.fixture(scope='session', autouse=True)
def optimized_solids():
  with pytest.MonkeyPatch.context() as patch:
    for module, name, static in (
      (render, 'draw', 'size'),
      (render, 'measure', 'size'),
      (network, 'look', ()),
    ):
      function = getattr(module, name).__wrapped__
      program = jax.jit(function, static_argnames=static, compiler_options=OPTIMIZED)
      patch.setattr(module, name, program)
    yield
