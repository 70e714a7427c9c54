"""Streams features and motion of a video's frames to the audio model, in one pass."""

import itertools
import math
from collections.abc import Iterator

import numpy as np

from mgjax.core.typing import Float, UInt8
from mgjax.sections.audio.frame_features import See, pixel_features, resample
from mgjax.sections.audio.rerank import motion_change, velocities

_CHUNK = 50  # frames that are seen at a time, from the last of those before on


class VideoTrack:
  """Features and motion of any stretch of a video, of which no more is held than is asked for.

  Stretches are asked for in order: what lies before the last one is gone. Beyond the end of the
  video its last frame stands still.
  """

  def __init__(
    self,
    frames: Iterator[UInt8[np.ndarray, 'h w 3']],
    *,
    seconds: float,
    fps: float,
    rate: float,
    see: See = pixel_features,
  ):
    """Takes frames in order, `fps` a second, read when needed; `rate` is in latents a second."""
    self.seconds = seconds
    self._frames = frames
    self._fps = fps
    self._rate = rate
    self._see = see
    self._features: list[np.ndarray] = []  # of one frame after another, ...
    self._start = 0  # ... from this one on
    self._velocity: list[np.ndarray] = []
    self._last: list[np.ndarray] = []

  def features(self, start: int, stop: int) -> Float[np.ndarray, 't e']:
    """Returns the features of the latents from `start` to `stop`; `start` never goes back."""
    first = max(math.floor((start + 0.5) / self._rate * self._fps - 0.5), 0)
    self._read(math.ceil((stop + 0.5) / self._rate * self._fps))
    gone = min(first - self._start, len(self._features) - 1)
    self._features = self._features[gone:]
    self._start = self._start + gone
    held = np.stack(self._features)
    return resample(held, self._fps, stop - start, self._rate, start, self._start)

  def motion(self, start: int, stop: int) -> Float[np.ndarray, ' t']:
    """Returns how abruptly motion changes at those latents; see `mgjax.sections.audio.rerank`."""
    self._read(math.ceil((stop + 0.5) / self._rate * self._fps))
    known = np.concatenate([np.zeros((0, 2)), *self._velocity])
    return motion_change(known, self._fps, stop)[start:]

  def _read(self, upto: int) -> None:
    """Reads until frame `upto` is there, or the video ends."""
    while self._start + len(self._features) <= upto:
      chunk = list(itertools.islice(self._frames, _CHUNK - len(self._last)))
      if not chunk:
        return
      seen = np.stack([*self._last, *chunk])  # motion needs the frame before
      self._features += list(self._see(seen)[len(self._last) :])
      self._velocity.append(velocities(seen, self._fps))
      self._last = chunk[-1:]
