"""A video is decoded once, and every size that is asked for comes from the same frames."""

import av
import numpy as np

from mgjax.data.media.video import stream_frames
from mgjax.lab.curation.frames import Frame, shrunk_size, stream
from tests.data.media.real_clips import real_clip


def test_frames_and_times_are_those_of_the_video():
  path = real_clip('carphone_pristine.mp4')
  expected = list(stream_frames(path))
  found = list(stream(path))
  assert [frame.number for frame in found] == list(range(120))
  assert [(frame.start, frame.end) for frame in found] == [each[:2] for each in expected]
  np.testing.assert_array_equal(found[7].pixels, expected[7][2])
  np.testing.assert_array_equal(found[7].shrunk(72).pixels, list(stream_frames(path, 72))[7][2])


def test_brightness_is_what_the_codec_stores():
  path = real_clip('bikes.mp4')
  with av.open(str(path)) as container:
    first = next(container.decode(video=0))
    stored = first.to_ndarray()[: first.height]
  frame = next(stream(path))
  np.testing.assert_array_equal(frame.luma, stored[:, : first.width])
  assert frame.size == frame.luma.shape == frame.pixels.shape[:2]


def test_motion_vectors_are_those_of_frames_that_refer_to_others():
  lengths = [frame.vectors for frame in stream(real_clip('bikes.mp4'))]
  # Six shots begin with key frames, which refer to nothing.
  assert [n for n, each in enumerate(lengths) if each is None] == [0, 30, 76, 137, 187, 242]


def test_a_frame_is_shrunk_once_for_all_who_ask():
  pixels = np.random.default_rng(0).integers(0, 255, (60, 80, 3)).astype(np.uint8)
  frame = Frame(0, 0.0, 0.1, pixels, pixels[..., 0])
  assert frame.shrunk(30) is frame.shrunk(30)
  assert frame.shrunk(30).pixels.shape == (30, 40, 3)
  assert frame.shrunk(None) is frame and frame.shrunk(60) is frame and frame.shrunk(100) is frame
  assert shrunk_size((100, 51), 25) == (50, 24)  # both even
