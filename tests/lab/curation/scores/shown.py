"""Frames for scorers, without a file."""

import numpy as np

from mgjax.lab.curation.frames import Frame
from mgjax.lab.curation.scores.scorer import Scorer, watch


def frames_of(pictures, fps=8.0, vectors=None) -> list[Frame]:
  """Frames of pictures (h w 3) or (h w), uint8, shown one after another."""
  made = []
  for n, picture in enumerate(pictures):
    pixels = picture if picture.ndim == 3 else np.repeat(picture[..., None], 3, -1)
    luma = np.uint8(np.rint(pixels @ np.array([0.299, 0.587, 0.114])))
    made.append(Frame(n, n / fps, (n + 1) / fps, pixels, luma, vectors))
  return made


def scores_of(scorer: Scorer, pictures, fps=8.0, vectors=None):
  """What a scorer says of all of them."""
  frames = frames_of(pictures, fps, vectors)
  watch(frames, [scorer])
  return scorer.scores(0.0, frames[-1].end)


def pattern(height=96, width=128, seed=0, coarse=8):
  """A picture of soft spots in colours."""
  import cv2

  spots = np.random.default_rng(seed).integers(0, 255, (coarse, coarse, 3)).astype(np.uint8)
  return cv2.resize(spots, (width, height), interpolation=cv2.INTER_CUBIC)
