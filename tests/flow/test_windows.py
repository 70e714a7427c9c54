"""Windows of one size cover a line, and share what they are asked to."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mgjax.core.errors import ConfigError
from mgjax.flow.windows import Cover, windows

EPS = float(np.finfo(np.float64).eps)


@st.composite
def covers(draw):
  size = draw(st.integers(1, 200))
  return windows(draw(st.integers(1, 200)), size, draw(st.integers(0, size // 2)))


@given(covers())
def test_tiles_cover_an_axis_from_end_to_end_with_none_to_spare(cover):
  starts = np.array(cover.starts)
  assert (starts[0], starts[-1] + cover.size) == (0, cover.length)
  steps = np.diff(starts)
  assert (steps[:-1] == cover.size - cover.feather).all()
  assert ((steps > 0) & (steps <= cover.size - cover.feather)).all()


@given(covers())
def test_windows_are_a_partition_of_unity(cover):
  windows, total = cover.windows, np.zeros(cover.length)
  assert windows.shape == (len(cover.starts), cover.size)
  assert (windows > 0).all()
  for start, window in zip(cover.starts, windows, strict=True):
    total[start : start + cover.size] += window
  # Two, at the last start three, quotients by the same sum, each rounded once, then added.
  np.testing.assert_allclose(total, 1, atol=4 * EPS)


def test_windows_are_linear_ramps_where_two_tiles_meet():
  left, right = Cover(12, 8, 4).windows
  ramp = (np.arange(4) + 0.5) / 4
  np.testing.assert_allclose(left, [*np.ones(4), *ramp[::-1]], atol=EPS)
  np.testing.assert_allclose(right, [*ramp, *np.ones(4)], atol=EPS)


@pytest.mark.parametrize('arguments', [(0, 16, 4), (50, 16, 16), (50, 16, -1), (50, 0, 0)])
def test_windows_that_would_not_go_on_are_refused(arguments):
  with pytest.raises(ConfigError, match='expected a frame at least'):
    windows(*arguments)
