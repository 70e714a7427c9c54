"""Soundtracks: the pictures stay as they are and the sound is in time."""

import logging

import av
import numpy as np
import pytest

from mgjax.core.errors import DataError
from mgjax.data.media.audio import probe_audio, read_audio, write_soundtrack
from mgjax.data.media.video import probe, write_video
from tests.data.media.audio_files import delay, encode_video, noise, turn
from tests.data.media.real_clips import real_clip

FRAMES = (np.arange(60, dtype=np.uint8)[:, None, None, None] * 4) * np.ones(
  (1, 32, 32, 3), np.uint8
)


def packets(path):
  with av.open(str(path)) as container:
    stream = container.streams.video[0]
    found = [packet for packet in container.demux(stream) if packet.size]
    times = np.array([float((packet.pts - found[0].pts) * packet.time_base) for packet in found])
    return [bytes(packet) for packet in found], times


def videos(folder):
  return {
    'b-frames': encode_video(folder / 'b.mp4', FRAMES),
    'late': encode_video(folder / 'late.mkv', FRAMES, begin=1.2),
    'with another sound': encode_video(folder / 'sound.mp4', FRAMES, noise(2.4, seed=9)),
    'webm': encode_video(folder / 'a.webm', FRAMES, codec='libvpx-vp9', deadline='realtime'),
  }


@pytest.mark.parametrize('name', ['b-frames', 'late', 'with another sound', 'webm'])
@pytest.mark.parametrize('rate', [48_000, 44_100])
def test_pictures_are_copied_and_the_sound_is_in_time(tmp_path, name, rate, caplog):
  video, sound = videos(tmp_path)[name], noise(2.4, rate)
  out = tmp_path / 'out.mp4'
  write_soundtrack(out, video, iter(np.array_split(sound, 7)), rate)
  (before, times), (after, new_times) = packets(video), packets(out)
  assert before == after
  np.testing.assert_allclose(times, new_times, atol=1e-9)
  back = read_audio(out, rate=rate)
  assert back.shape == sound.shape and delay(sound, back) == 0
  assert np.corrcoef(back[:, 0], sound[:, 0])[0, 1] > 0.99
  assert not caplog.records


def test_real_footage_gets_another_sound(tmp_path):
  video, sound = real_clip('bigbuckbunny.mp4'), noise(5.28, channels=2)
  write_soundtrack(tmp_path / 'out.mp4', video, [sound], 48_000)
  assert packets(video)[0] == packets(tmp_path / 'out.mp4')[0]
  assert delay(sound, read_audio(tmp_path / 'out.mp4', channels=2)) == 0


def test_sound_alone_is_written(tmp_path):
  sound = noise(1.5)
  write_soundtrack(tmp_path / 'a.m4a', None, [sound[:10], sound[10:10], sound[10:]], 48_000)
  back = read_audio(tmp_path / 'a.m4a')
  assert back.shape == sound.shape and delay(sound, back) == 0
  assert [path.name for path in tmp_path.iterdir()] == ['a.m4a']


@pytest.mark.parametrize('seconds, words', [(1.0, 'followed by silence'), (4.0, 'cut at 2.40 s')])
def test_another_length_is_fitted_to_the_video_aloud(tmp_path, caplog, seconds, words):
  video = encode_video(tmp_path / 'b.mp4', FRAMES)
  with caplog.at_level(logging.WARNING):
    write_soundtrack(tmp_path / 'out.mp4', video, [noise(seconds)], 48_000)
  assert words in caplog.text
  back = read_audio(tmp_path / 'out.mp4')
  assert len(back) == 115_200
  assert np.abs(back[-24_000:]).max() < 1e-3 or seconds > 2.4


def test_a_turned_video_stays_turned(tmp_path):
  write_video(tmp_path / 'a.mp4', np.zeros((8, 32, 64, 3), np.uint8), fps=8)
  turn(tmp_path / 'a.mp4')
  write_soundtrack(tmp_path / 'out.mp4', tmp_path / 'a.mp4', [noise(1.0)], 48_000)
  info = probe(tmp_path / 'out.mp4')
  assert (info.height, info.width, info.has_audio) == (64, 32, True)


def test_a_video_may_be_replaced_by_itself_with_sound(tmp_path):
  video = encode_video(tmp_path / 'a.mp4', FRAMES)
  before = packets(video)[0]
  write_soundtrack(video, video, [noise(2.4)], 48_000)
  assert packets(video)[0] == before and probe_audio(video).seconds == pytest.approx(2.4)


def test_an_error_on_the_way_leaves_nothing_and_is_the_callers(tmp_path):
  video = encode_video(tmp_path / 'a.mp4', FRAMES)

  def failing():
    yield noise(1.0)
    raise ValueError('the model broke')

  with pytest.raises(ValueError, match='the model broke'):
    write_soundtrack(tmp_path / 'out.mp4', video, failing(), 48_000)
  with pytest.raises(DataError, match='normalise'):
    write_soundtrack(tmp_path / 'out.mp4', video, [noise(1.0), 9 * noise(1.0)], 48_000)
  assert [path.name for path in tmp_path.iterdir()] == ['a.mp4']
