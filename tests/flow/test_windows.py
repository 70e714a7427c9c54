"""Windows of one size cover a line, and share what they are asked to."""

import numpy as np
import pytest

from mgjax.core.errors import ConfigError
from mgjax.flow.windows import windows

SIZE, OVERLAP = 16, 6


@pytest.mark.parametrize('total', [1, 15, 16, 17, 26, 27, 50, 1000])
def test_windows_are_of_one_size_and_cover_everything(total):
  cover = windows(total, SIZE, OVERLAP)
  assert cover.size == min(SIZE, total)
  assert cover.starts[0] == 0 and cover.starts[-1] + cover.size == total
  steps = np.diff(cover.starts)
  assert (steps > 0).all() and (steps <= SIZE - OVERLAP).all()
  assert (steps[:-1] == SIZE - OVERLAP).all()


@pytest.mark.parametrize('arguments', [(0, 16, 4), (50, 16, 16), (50, 16, -1), (50, 0, 0)])
def test_windows_that_would_not_go_on_are_refused(arguments):
  with pytest.raises(ConfigError, match='expected a frame at least'):
    windows(*arguments)
