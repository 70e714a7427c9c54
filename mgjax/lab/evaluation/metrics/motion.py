"""How much moves in a video: the size of its optical flow."""

import dataclasses
from collections.abc import Iterable

import numpy as np

from mgjax.core.errors import DataError
from mgjax.core.typing import Float
from mgjax.data.media.optical_flow import Flow

DYNAMIC = 6 / 256  # of the shorter side a frame
_FASTEST = 0.05  # of the pixels
_FRAMES = 0.25  # of a clip's


@dataclasses.dataclass(frozen=True)
class Motion:
  """Motion between frames in shares of the shorter side: of all pixels and the fastest 5%."""

  mean: Float[np.ndarray, 't']
  fastest: Float[np.ndarray, 't']

  def dynamic(self) -> bool:
    """Says whether in a quarter of the frames, or one at least, the fastest move by 6 / 256.

    It is VBench's rule of dynamic degree with its threshold, of another optical flow. VBench looks
    at 8 frames a second: motion a frame depends on the frame rate, so bring clips to one.
    """
    needed = max(round(_FRAMES * (len(self.fastest) + 1)), 1)
    return int((self.fastest > DYNAMIC).sum()) >= needed


def motion_of(flows: Iterable[Flow]) -> Motion:
  """Measures motion from the flow between each frame and the next; DataError if there is none."""
  mean = []
  fastest = []
  for flow in flows:
    lengths = np.sort(np.linalg.norm(np.asarray(flow, np.float64), axis=-1), axis=None)
    side = min(flow.shape[:2])
    mean.append(lengths.mean() / side)
    fastest.append(lengths[-max(int(_FASTEST * len(lengths)), 1) :].mean() / side)
  if not mean:
    raise DataError('motion is between frames; give two or more')
  return Motion(np.array(mean), np.array(fastest))
