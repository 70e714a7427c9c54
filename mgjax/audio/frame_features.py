"""Turns video frames into one feature vector per audio latent (Movie Gen §6)."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from mgjax.conditioning.frame_features import KEY
from mgjax.core.errors import DataError
from mgjax.core.resize import averaging
from mgjax.core.typing import Float

SIDE = 16  # pixels that a frame is averaged to
PIXELS = 3 * SIDE**2  # features a frame

See = Callable[[np.ndarray], np.ndarray]  # frames of bytes (t h w 3) -> their features (t e)


def pixel_features(video: np.ndarray) -> Float[np.ndarray, 't e']:
  """Averages every frame of bytes (t h w 3) to 16 x 16 pixels in [-1, 1].

  Features that need no trained network, for those of Long-prompt MetaCLIP where its weights are not
  at hand. Raises DataError if the video is no bytes, has other axes, or a frame is smaller than 16
  x 16.
  """
  if video.dtype != np.uint8 or video.ndim != 4 or video.shape[-1] != 3:
    raise DataError(f'a video of {video.dtype} {video.shape}; expected uint8 (t h w 3)')
  frames, height, width, _ = video.shape
  if min(height, width) < SIDE or not frames:
    raise DataError(
      f'a video of {frames} frame(s) of {height} x {width}; expected one at least, and no side '
      f'below {SIDE} pixels'
    )
  # Products frame by frame: of all frames at once, 10 ms of two processors go into waking threads.
  rows, columns = (averaging(side, SIDE) for side in (height, width))
  averaged = rows @ video.reshape(frames, height, width * 3).astype(np.float32)
  averaged = columns @ averaged.reshape(frames * SIDE, width, 3)
  return averaged.reshape(frames, PIXELS) / np.float32(127.5) - 1


def see_samples(
  samples: Sequence[Mapping[str, Any]], see: See, width: int, fps: float, count: int, rate: float
) -> list[dict[str, Any]]:
  """Replaces the 'video' of samples by 'frame_features' (n e); zeros where there are no pictures.

  All frames, of `fps`, are seen at once; `count` is that of the latents of each sample, `rate` in
  latents a second.
  """
  samples = [dict(sample) for sample in samples]
  clips = [sample.pop('video', None) for sample in samples]
  there = [clip for clip in clips if clip is not None]
  seen = see(np.concatenate(there)) if there else np.zeros((0, width), np.float32)
  parts = iter(np.split(seen, np.cumsum([len(clip) for clip in there])))
  for sample, clip in zip(samples, clips, strict=True):
    nothing = np.zeros((count, width), np.float32)
    sample[KEY] = nothing if clip is None else resample(next(parts), fps, count, rate)
  return samples


def resample(
  features: Float[np.ndarray, 't e'],
  fps: float,
  count: int,
  rate: float,
  first: int = 0,
  start: int = 0,
) -> Float[np.ndarray, 'n e']:
  """Resamples features linearly from `fps` to `count` vectors at `rate`, from latent `first` on.

  Latent j stands for the sound around (j + 1/2) / rate, frame i for the picture around (i + 1/2) /
  fps; beyond the first and the last frame they are held. `features` begin with frame `start`.
  """
  place = (first + np.arange(count) + 0.5) / rate * fps - 0.5 - start
  place = np.clip(place, 0, len(features) - 1).astype(np.float32)
  low = np.floor(place).astype(np.int64)
  share = (place - low)[:, None]
  high = np.minimum(low + 1, len(features) - 1)
  return features[low] * (1 - share) + features[high] * share
