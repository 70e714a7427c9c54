"""Turns video frames into one feature vector per audio latent (Movie Gen §6)."""

from collections.abc import Callable, Sequence

import numpy as np

from mgjax.core.configuration.keys import Fields, Sample
from mgjax.core.errors import DataError
from mgjax.core.resize import averaging
from mgjax.core.typing import Float
from mgjax.models.conditioning.frame_features import FRAME_FEATURES_KEY

_SIDE = 16  # pixels that a frame is averaged to
PIXELS = 3 * _SIDE**2  # features a frame

_DARK = 2e-4  # squared gradients that noise has, of brightness in [-1, 1] a pixel
_FASTEST = 3.0  # pixels of 32 a frame, beyond which the fit is none

See = Callable[[np.ndarray], np.ndarray]  # frames of bytes (t h w 3) -> their features (t e)


def pixel_features(video: np.ndarray) -> Float[np.ndarray, 't e']:
  """Averages every frame of bytes (t h w 3) to 16 x 16 pixels in [-1, 1].

  Features that need no trained network, in place of those of Long-prompt MetaCLIP. Raises DataError
  if the video is not uint8, has other axes, or a frame is smaller than 16 x 16.
  """
  if video.dtype != np.uint8 or video.ndim != 4 or video.shape[-1] != 3:
    raise DataError(f'a video of {video.dtype} {video.shape}; expected uint8 (t h w 3)')
  frames, height, width, _ = video.shape
  if min(height, width) < _SIDE or not frames:
    raise DataError(
      f'a video of {frames} frame(s) of {height} x {width}; expected one at least, and no side '
      f'below {_SIDE} pixels'
    )
  return _averaged(video, _SIDE).reshape(frames, PIXELS)


def motion_features(video: np.ndarray) -> Float[np.ndarray, 't e']:
  """`pixel_features` of one clip, then how brightness I moved since the frame before.

  v = -(sum g g^T + e)^-1 sum g I_t with g = grad I (Lucas and Kanade, 1981). Its unit is a 32nd of
  a side a frame, right and down. Sums are over 6 x 6 of 32 x 32 pixels. For the first frame v is 0.
  Velocities show where things meet, bounce and stop, which a map of single frames cannot learn.
  Raises DataError as `pixel_features` does.
  """
  from scipy.ndimage import gaussian_filter, uniform_filter  # 100 ms, for those who see motion

  pixels = pixel_features(video)
  grey = gaussian_filter(_averaged(video, 2 * _SIDE).mean(-1), (0, 0.7, 0.7), mode='nearest')
  middle = (grey[1:] + grey[:-1]) / 2
  change = grey[1:] - grey[:-1]
  down, right = np.gradient(middle, axis=(1, 2))
  sums = np.stack([right * right, right * down, down * down, right * change, down * change])
  sums = sums.reshape(5, -1, _SIDE, 2, _SIDE, 2).mean((3, 5))
  xx, xy, yy, xt, yt = uniform_filter(sums, (0, 0, 3, 3), mode='constant')
  xx, yy = xx + _DARK, yy + _DARK
  velocity = np.stack([xy * yt - yy * xt, xy * xt - xx * yt]) / (xx * yy - xy * xy)
  velocity = np.clip(velocity, -_FASTEST, _FASTEST).swapaxes(0, 1).reshape(len(middle), -1)
  return np.concatenate([pixels, np.pad(velocity, ((1, 0), (0, 0)))], 1, dtype=np.float32)


def _averaged(video: np.ndarray, side: int) -> Float[np.ndarray, 't i j 3']:
  frames, height, width, _ = video.shape
  # Products frame by frame: of all frames at once, 10 ms of two processors go into waking threads.
  rows, columns = (averaging(length, side) for length in (height, width))
  averaged = rows @ video.reshape(frames, height, width * 3).astype(np.float32)
  averaged = columns @ averaged.reshape(frames * side, width, 3)
  return averaged.reshape(frames, side, side, 3) / np.float32(127.5) - 1


# Features that no network makes, by their name in config.vision, and how many a frame has.
FRAME_ENCODERS: dict[str, tuple[See, int]] = {
  '': (pixel_features, PIXELS),
  'motion': (motion_features, PIXELS + 2 * _SIDE**2),
}


def see_samples(
  samples: Sequence[Fields], see: See, width: int, fps: float, count: int, rate: float
) -> list[Sample]:
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
    sample[FRAME_FEATURES_KEY] = (
      nothing if clip is None else resample(next(parts), fps, count, rate)
    )
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
  position = (first + np.arange(count) + 0.5) / rate * fps - 0.5 - start
  position = np.clip(position, 0, len(features) - 1).astype(np.float32)
  low = np.floor(position).astype(np.int64)
  share = (position - low)[:, None]
  high = np.minimum(low + 1, len(features) - 1)
  return features[low] * (1 - share) + features[high] * share
