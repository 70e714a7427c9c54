"""Compression there and back: sizes of all kinds, the same bytes in every process."""

import hashlib
import io

import numpy as np
import pytest
from PIL import Image

from mgjax.core.resize import resize
from mgjax.data.media.compression import CODECS, jpeg, video_codec
from tests.binaries import python


def clip(height=48, width=64, frames=5):
  """Smooth noise that drifts, in colour."""
  coarse = np.random.default_rng(0).integers(0, 256, (1, 8, 10, 3)).astype(np.uint8)
  still = resize(coarse, (height, width), 'bicubic')[0]
  return np.stack([np.roll(still, 2 * number, 1) for number in range(frames)])


def error(frames, decoded):
  return np.abs(frames.astype(int) - decoded).mean()


def test_jpeg_is_pillows_of_each_frame_on_its_own():
  frames = clip()
  decoded = jpeg(frames, 40)
  buffer = io.BytesIO()
  Image.fromarray(frames[3]).save(buffer, 'JPEG', quality=40)
  assert np.array_equal(decoded[3], np.asarray(Image.open(buffer)))
  assert np.array_equal(jpeg(frames[3:4], 40)[0], decoded[3])
  assert error(frames, jpeg(frames, 95)) < error(frames, decoded) < error(frames, jpeg(frames, 5))


@pytest.mark.parametrize('codec', CODECS)
def test_a_codec_returns_every_frame_in_order_and_worse_at_a_higher_rate_factor(codec):
  frames = clip()
  fine, coarse = (video_codec(frames, codec, crf) for crf in (8, 40))
  assert fine.shape == frames.shape and fine.dtype == np.uint8
  assert error(frames, fine) < error(frames, coarse)
  for number, frame in enumerate(fine):
    nearest = [error(frame, other) for other in frames]
    assert np.argmin(nearest) == number
  # Colours are where they were: no channel is off on the whole, but for rounding in YCbCr.
  assert np.abs((fine.astype(float) - frames).mean((0, 1, 2))).max() < 2


@pytest.mark.parametrize('codec', CODECS)
@pytest.mark.parametrize('size', [(1, 1), (5, 37), (47, 63), (70, 18)])
def test_sizes_that_codecs_lack_come_back_as_they_were(codec, size):
  frames = np.full((3, *size, 3), (200, 100, 50), np.uint8)
  decoded = video_codec(frames, codec, 12)
  assert decoded.shape == frames.shape
  assert np.abs(decoded.astype(int) - frames).max() < 8


HASH = """
import hashlib
from tests.data.media.test_compression import clip
from mgjax.data.media.compression import CODECS, jpeg, video_codec
frames = clip(50, 70, 14)
for codec in CODECS:
  print(hashlib.sha256(video_codec(frames, codec, 30, 24).tobytes()).hexdigest())
print(hashlib.sha256(jpeg(frames, 50).tobytes()).hexdigest())
"""


@pytest.mark.slow  # a process of its own
def test_the_same_arguments_give_the_same_bytes_in_another_process():
  frames = clip(50, 70, 14)
  decoded = [*(video_codec(frames, codec, 30, 24) for codec in CODECS), jpeg(frames, 50)]
  ours = [hashlib.sha256(each.tobytes()).hexdigest() for each in decoded]
  other = python('-c', HASH)
  assert other.stdout.split() == ours
