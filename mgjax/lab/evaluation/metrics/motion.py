"""Amount of motion in a video: the magnitude of its optical flow."""

import dataclasses
from collections.abc import Iterable

import numpy as np

from mgjax.core.errors import DataError
from mgjax.core.typing import Float
from mgjax.data.media.optical_flow import Flow

DYNAMIC = 6 / 256  # motion a frame, as a share of the shorter side
_FASTEST = 0.05  # share of pixels
_FRAMES = 0.25  # share of a clip's frames


@dataclasses.dataclass(frozen=True)
class Motion:
  """Mean motion between frames, of all and of the fastest 5% of pixels, in shorter sides."""

  mean: Float[np.ndarray, 't']
  fastest: Float[np.ndarray, 't']

  def dynamic(self) -> bool:
    """Returns whether the fastest pixels move by 6 / 256 in a quarter of the frames, at least one.

    It is VBench's rule and threshold of dynamic degree, with another optical flow. VBench samples 8
    frames a second. Motion a frame depends on the frame rate, so compare clips of the same rate.
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
