"""libtpu and the flags of the CPU's compiler, in one process."""

import pytest


@pytest.fixture(autouse=True)
def compiler_of_tpus(without_flags_of_the_cpu):
  """Plans may compile for TPUs, marked or not."""
