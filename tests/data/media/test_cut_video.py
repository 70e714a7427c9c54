"""A stretch of a video: exact frames, copied where key frames allow, sound on its clock."""

import numpy as np
import pytest

from mgjax.core.errors import DataError
from mgjax.data.media.audio import read_audio, soundtrack
from mgjax.data.media.containers import Blob
from mgjax.data.media.transcode import cut_video
from mgjax.data.media.video import encode_frames, probe, stream_frames
from tests.data.media.real_clips import real_clip

FPS, GOP, COUNT = 24, 12, 72
RATE = 48_000


def numbered(count=COUNT):
  """Frames that tell by their brightness which they are: three grey levels apart."""
  for number in range(count):
    yield number / FPS, (number + 1) / FPS, np.full((64, 96, 3), 20 + 3 * number, np.uint8)


def numbers(data):
  """Which frames of `numbered` a video shows, and when."""
  shown = list(stream_frames(Blob('cut', data)))
  return [round((frame.mean() - 20) / 3) for _, _, frame in shown], [start for start, *_ in shown]


@pytest.fixture(scope='module')
def video():
  """Key frames at 0, 0.5, 1 s, ...; a click every quarter of a second."""
  pictures = encode_frames(numbered(), fps=FPS, clock=FPS * 1000, crf=10, gop=GOP)
  sound = np.zeros((3 * RATE, 1), np.float32)
  for quarter in range(12):
    sound[quarter * RATE // 4 :][:200] = 0.5 * np.sin(np.arange(200) * 0.4)[:, None]
  return Blob('numbered', soundtrack(Blob('pictures', pictures), [sound], RATE))


@pytest.mark.parametrize('first', [0, 12, 24, 36, 7, 23, 25])
@pytest.mark.parametrize('last', [48, 72, 41, 50])
def test_the_frames_are_exactly_those_of_the_stretch(video, first, last):
  data, copied = cut_video(video, first / FPS, last / FPS)
  shown, starts = numbers(data)
  assert shown == list(range(first, last))
  assert starts == pytest.approx([(number - first) / FPS for number in shown], abs=2e-4)
  assert copied <= (first % GOP == 0)
  assert probe(Blob('cut', data)).seconds == pytest.approx((last - first) / FPS, abs=2e-3)


def test_pictures_are_copied_from_key_frame_to_key_frame_unless_all_are_to_be_encoded(video):
  data, copied = cut_video(video, 0.5, 1.5)
  anew, encoded = cut_video(video, 0.5, 1.5, anew=True)
  assert copied and not encoded
  whole = [frame for start, _, frame in stream_frames(video) if 0.5 <= start < 1.5]
  for (_, _, frame), true in zip(stream_frames(Blob('cut', data)), whole, strict=True):
    np.testing.assert_array_equal(frame, true)
  assert numbers(anew)[0] == numbers(data)[0]


@pytest.mark.parametrize('first, last', [(12, 36), (7, 41)])
def test_sound_stays_on_the_clock_of_the_pictures(video, first, last):
  start, end = first / FPS, last / FPS
  data, _ = cut_video(video, start, end)
  heard = np.abs(read_audio(Blob('cut', data), rate=RATE)[:, 0])
  begins = [
    at / RATE
    for at in np.flatnonzero(heard > 0.2)
    if heard[max(0, at - 2000) : at].max(initial=0) <= 0.2
  ]
  wanted = [quarter / 4 - start for quarter in range(12) if start <= quarter / 4 < end - 0.02]
  # A click rises to the threshold within 2 samples; AAC smears it over less than a block of 128.
  assert begins == pytest.approx(wanted, abs=130 / RATE)
  assert len(heard) / RATE == pytest.approx(end - start, abs=1024 / RATE)


def test_shots_of_real_footage_are_copied_at_their_cuts():
  bikes = real_clip('bikes.mp4')
  true = [frame for start, _, frame in stream_frames(bikes) if 3.0399 < start < 5.4799]
  data, copied = cut_video(bikes, 3.04, 5.48)
  assert copied
  for (_, _, frame), each in zip(stream_frames(Blob('cut', data)), true, strict=True):
    np.testing.assert_array_equal(frame, each)


def test_a_stretch_beyond_the_end_is_a_sentence(video):
  with pytest.raises(DataError, match='shows no frame'):
    cut_video(video, 5.0, 6.0)
