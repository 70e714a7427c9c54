"""What a clip shows does not depend on how few frames are decoded for it."""

import av
import numpy as np
import pytest

from mgjax.data.media import frame_times
from mgjax.data.media.frame_times import TOLERANCE, frames_at, frames_from
from mgjax.data.media.video import encode_frames, read_clip, write_video
from tests.data.media.real_clips import real_clip


def numbered(path, *, gop, count=100, irregular=False):
  """A moving picture whose frames all differ, with or without even times."""
  generator = np.random.default_rng(0)
  noise = generator.integers(0, 256, (64 + count, 64, 3), np.uint8)
  ticks = np.cumsum(generator.integers(1, 5, count + 1)) if irregular else np.arange(count + 1)
  frames = ((ticks[i] / 50, ticks[i + 1] / 50, noise[i : i + 64]) for i in range(count))
  path.write_bytes(encode_frames(frames, fps=25, clock=50, crf=20, gop=gop))
  return path, ticks[-1] / 50


def decoded(path, moments, reader, *arguments):
  """The stamp of the frame on show at each moment, and how many frames were decoded for that."""
  with av.open(str(path)) as container:
    stream = container.streams.video[0]
    stream.codec_context.thread_count = 1
    found, count = [], 0
    for frame, _, end in reader(container, stream, *arguments):
      count += 1
      while len(found) < len(moments) and moments[len(found)] < end:
        found.append(frame.pts)
      if len(found) == len(moments):
        break
  return found, count


@pytest.mark.parametrize('irregular', [False, True])
@pytest.mark.parametrize('gop', [8, 250])
def test_the_same_frames_are_shown_whatever_is_passed_over(tmp_path, gop, irregular):
  path, seconds = numbered(tmp_path / 'a.mp4', gop=gop, irregular=irregular)
  generator = np.random.default_rng(1)
  for fps in (3, 16, 25, 60):
    for start in generator.uniform(0.05, seconds - 12 / fps if 12 / fps < seconds else 0.1, 5):
      moments = [start + i / fps + TOLERANCE for i in range(12) if start + i / fps < seconds]
      plain, every = decoded(path, moments, frames_from, start)
      quick, few = decoded(path, moments, frames_at, moments, start, 1000)
      assert quick == plain and len(plain) == len(moments)
      assert few <= len(set(plain)) <= every


@pytest.mark.parametrize('name', ['bikes.mp4', 'bigbuckbunny.mp4', 'carphone_pristine.mp4'])
def test_real_clips_are_read_as_if_all_was_decoded(name, monkeypatch):
  options = {'frames': 10, 'size': (64, 64), 'fps': 16}
  starts = (0.02, 0.5, 1.33, 2.9)
  quick = [read_clip(real_clip(name), start=start, **options) for start in starts]
  monkeypatch.setattr(frame_times, '_find', lambda *_: None)
  for clip, start in zip(quick, starts, strict=True):
    np.testing.assert_array_equal(clip, read_clip(real_clip(name), start=start, **options))


def test_packets_beyond_count_or_without_stamps_are_no_reason_to_fail(tmp_path):
  path, _ = numbered(tmp_path / 'a.mp4', gop=250)
  moments = [1.0, 1.5]
  expected, _ = decoded(path, moments, frames_from, 1.0)
  assert decoded(path, moments, frames_at, moments, 1.0, 3)[0] == expected
  write_video(tmp_path / 'still.mp4', np.zeros((1, 16, 16, 3), np.uint8), 1)
  assert read_clip(tmp_path / 'still.mp4', frames=1, size=(16, 16), fps=4, start=0.5).any() == 0
