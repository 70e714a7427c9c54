"""Dense optical flow between two frames, warping by it, and occlusion.

A flow is float32 (h w 2), (y, x) in pixels: what is at (y, x) of a frame `a` is at (y + flow[y, x,
0], x + flow[y, x, 1]) of the frame `b`. It is computed by Dense Inverse Search (Kroeger et al.,
2016, arXiv:1603.03590) of OpenCV, which the extra `curation` installs.
"""

import functools
from collections.abc import Iterable, Iterator
from types import ModuleType

import numpy as np
from scipy.ndimage import map_coordinates

from mgjax.core.errors import DataError
from mgjax.core.plug_ins import load_package
from mgjax.core.typing import Bool, Float, UInt8

_LEAST = 16  # pixels of a side, two patches of the search
_GREY = np.array([0.299, 0.587, 0.114], np.float32)  # ITU-R BT.601
_SHARE, _SLACK = 0.01, 0.5  # Sundaram et al., equation (5); the second in pixels squared

Flow = Float[np.ndarray, 'h w 2']


@functools.cache
def opencv() -> ModuleType:
  """Returns OpenCV with one thread; ConfigError if it is not installed."""
  cv2 = load_package('cv2', 'optical flow needs OpenCV', 'curation')
  # It cuts a frame into as many parts as threads, and the flow depends on them.
  cv2.setNumThreads(1)
  return cv2


def optical_flow(a: UInt8[np.ndarray, 'h w 3'], b: UInt8[np.ndarray, 'i j 3']) -> Flow:
  """Returns where the pixels of `a` went in `b`, (y, x) in pixels; raises as `flow_of_luma`."""
  return flow_of_luma(*(np.rint(frame @ _GREY).astype(np.uint8) for frame in (a, b)))


def flow_of_luma(a: UInt8[np.ndarray, 'h w'], b: UInt8[np.ndarray, 'i j']) -> Flow:
  """Returns the flow of two frames of brightness alone; see `optical_flow`.

  Raises:
    ConfigError: OpenCV is not installed.
    DataError: the frames differ in size, or are too small.
  """
  cv2 = opencv()
  if a.shape != b.shape or min(a.shape) < _LEAST:
    raise DataError(
      f'optical flow between frames of {a.shape} and {b.shape} pixels: expected two of one '
      f'size, {_LEAST} pixels a side or more'
    )
  a, b = np.ascontiguousarray(a), np.ascontiguousarray(b)  # the search refuses a part of a picture
  search = cv2.DISOpticalFlow_create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)
  return np.ascontiguousarray(search.calc(a, b, None)[..., ::-1])  # OpenCV's are (x, y)


def flows(frames: Iterable[UInt8[np.ndarray, 'h w 3']]) -> Iterator[tuple[Flow, Flow]]:
  """Yields, for each frame but the first, its flow to the one before it and the flow back."""
  before = None
  for frame in frames:
    if before is not None:
      yield optical_flow(frame, before), optical_flow(before, frame)
    before = frame


def warp(frame: np.ndarray, flow: Flow) -> Float[np.ndarray, 'h w *c']:
  """Returns `frame[y + flow_y, x + flow_x]` of a frame (h w) or (h w c), bilinear, float32.

  With the flow from `a` to `b`, `warp(b, flow)` looks like `a`. Beyond its edges a frame is
  extended by its border pixels.
  """
  targets = _targets(flow)
  frame = np.asarray(frame, np.float32)
  planes = frame.reshape(*frame.shape[:2], -1)
  warped = [
    map_coordinates(planes[..., channel], targets, order=1, mode='nearest')
    for channel in range(planes.shape[-1])
  ]
  return np.stack(warped, -1).reshape(frame.shape)


def occluded(there: Flow, back: Flow) -> Bool[np.ndarray, 'h w']:
  """Says which pixels of a frame are hidden in another, by the forward-backward check.

  With u the flow there and v the flow back, warped to where u leads (Sundaram et al., 2010, Dense
  Point Trajectories by GPU-accelerated Large Displacement Optical Flow, equation 5),

    |u + v|^2 > 0.01 (|u|^2 + |v|^2) + 0.5

  or u leads out of the frame.
  """
  returned = warp(back, there)
  targets = _targets(there)
  limit = np.array(there.shape[:2])[:, None, None] - 0.5
  outside = ((targets < -0.5) | (targets > limit)).any(0)
  lengths = np.square(there).sum(-1) + np.square(returned).sum(-1)
  return outside | (np.square(there + returned).sum(-1) > _SHARE * lengths + _SLACK)


def _targets(flow: Flow) -> Float[np.ndarray, '2 h w']:
  return np.indices(flow.shape[:2], np.float32) + np.moveaxis(flow, -1, 0)
