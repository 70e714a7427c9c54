"""Colours of an enlarged video that are those of the small one."""

import numpy as np

from mgjax.core.resize import resize, round_to_bytes
from mgjax.core.typing import UInt8

_PIXELS = 2  # of the small frame that an average is of, each way


def keep_colours(
  large: UInt8[np.ndarray, 't i j 3'], small: UInt8[np.ndarray, 't h w 3']
) -> UInt8[np.ndarray, 't i j 3']:
  """Returns large frames with the low frequencies of their small source frames.

    y + up(down(x) - down(y))

  with averages over 2 x 2 pixels of the small frame (down) and bilinear enlargement (up): so the
  means of channels are those of the source, and detail stays the model's.
  """
  coarse = tuple(max(1, -(-side // _PIXELS)) for side in small.shape[1:3])
  source, enlarged = (
    resize(frames.astype(np.float32), coarse, 'area') for frames in (small, large)
  )
  return round_to_bytes(large + resize(source - enlarged, large.shape[1:3], 'bilinear'))
