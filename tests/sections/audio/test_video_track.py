"""A video that is read once, stretch by stretch, is seen as if it were read whole."""

import numpy as np
import pytest

from mgjax.data.media.video import probe, read_clip, stream_clip, write_video
from mgjax.sections.audio.frame_features import FRAME_ENCODERS, pixel_features, resample
from mgjax.sections.audio.rerank import motion_change, velocities
from mgjax.sections.audio.video_track import VideoTrack

RATE, SIZE = 25.0, (24, 32)


def track(path, fps, see=pixel_features):
  frames = stream_clip(path, size=SIZE, fps=fps)
  return VideoTrack(frames, seconds=probe(path).seconds, fps=fps, rate=RATE, see=see)


def write(path, fps, seconds=6.0, side=48):
  """A square that goes to and fro over a still background."""
  frames = round(seconds * fps)
  place = np.abs((np.arange(frames) / fps * 20) % 40 - 20).astype(int)
  video = np.full((frames, side, side * 4 // 3, 3), 30, np.uint8)
  for index, left in enumerate(place):
    video[index, 10:26, 4 + left : 20 + left] = (200, 120, 60)
  write_video(path, video, fps)
  return path


@pytest.mark.parametrize('way', FRAME_ENCODERS)
@pytest.mark.parametrize(('own', 'fps'), [(25, 25), (30, 25), (25, 8)])
def test_stretches_are_those_of_the_whole(tmp_path, own, fps, way):
  see, _ = FRAME_ENCODERS[way]
  path = write(tmp_path / 'a.mp4', own)
  frames = int(np.ceil(6.0 * fps))
  clip = read_clip(path, frames=frames, size=SIZE, fps=fps)
  whole = resample(see(clip), fps, 150, RATE)
  motion = motion_change(velocities(clip, fps), fps, 150)
  video_track = track(path, fps, see)
  for start, stop in [(0, 30), (20, 50), (20, 50), (45, 100), (149, 150)]:
    # float32 places of frames: a hundred thousandth of a frame, of features in [-1, 1].
    np.testing.assert_allclose(video_track.features(start, stop), whole[start:stop], atol=1e-4)
    np.testing.assert_allclose(
      video_track.motion(start, stop)[:-2], motion[start:stop][:-2], atol=1e-5
    )
  assert motion.max() > 0.5  # at the turns


def test_beyond_its_end_the_last_frame_stands(tmp_path):
  path = write(tmp_path / 'a.mp4', 25, seconds=1.0)
  video_track = track(path, 25)
  assert video_track.seconds == pytest.approx(1.0)
  features = video_track.features(10, 60)
  np.testing.assert_array_equal(features[15:], np.repeat(features[14:15], 35, axis=0))
  assert (features[0] != features[14]).any()
  assert not video_track.motion(30, 60).any()
  np.testing.assert_array_equal(video_track.features(50, 60), features[40:])


def test_what_is_past_is_not_held(tmp_path):
  path = write(tmp_path / 'a.mp4', 25, seconds=20.0)
  video_track = track(path, 25)
  held = []
  for start in range(0, 480, 10):
    video_track.features(start, start + 20)
    held.append(len(video_track._features))
  assert max(held) <= 20 + 2 + 50  # a stretch, its neighbours, a chunk of frames
