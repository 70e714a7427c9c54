"""Sound files: what is read is what was written, when it was, and what is wrong is a sentence."""

import struct
import wave

import numpy as np
import pytest

from mgjax.core.errors import DataError
from mgjax.data.media.audio import AudioInfo, probe_audio, read_audio, stream_audio, write_wav
from mgjax.data.media.containers import Limits
from tests.data.media.audio_files import delay, encode_sound, encode_video, noise
from tests.data.media.real_clips import real_clip

CODECS = {
  'wav': 'pcm_s16le',
  'aiff': 'pcm_s16be',
  'flac': 'flac',
  'mp3': 'libmp3lame',
  'ogg': 'libopus',
  'm4a': 'aac',
  'mkv': 'aac',
}
STEP = 1 / 32768  # of 16 bits


def pcm(path, samples, rate=48_000):
  """Writes int16 (s c) with any number of channels."""
  with wave.open(str(path), 'wb') as file:
    file.setparams((samples.shape[1], 2, rate, 0, 'NONE', ''))
    file.writeframes(samples.astype('<i2').tobytes())
  return path


def reason(path, **request):
  """The sentence that reading `path` is refused with."""
  with pytest.raises(DataError) as refusal:
    read_audio(path, **request)
  assert str(refusal.value).startswith(f'{path}: ')
  return str(refusal.value)


def test_a_wav_is_read_back(tmp_path):
  sound = noise(0.5, channels=2)
  sound[:2] = [[1, -1], [0, 0.5]]
  write_wav(tmp_path / 'a.wav', sound, 44_100)
  assert probe_audio(tmp_path / 'a.wav') == AudioInfo(44_100, 2, len(sound) / 44_100)
  back = read_audio(tmp_path / 'a.wav', rate=44_100, channels=2)
  assert back.dtype == np.float32
  # Rounding is off by half a step, full scale by one: 32767 is read as 32767 / 32768.
  np.testing.assert_allclose(back, sound, atol=1.5 * STEP)
  assert [path.name for path in tmp_path.iterdir()] == ['a.wav']


@pytest.mark.parametrize('suffix', CODECS)
def test_sound_is_when_it_was_and_as_long_in_every_format(tmp_path, suffix):
  sound = noise(2.3)
  path = encode_sound(tmp_path / f'a.{suffix}', sound, codec=CODECS[suffix])
  back = read_audio(path)
  assert delay(sound, back) == 0
  excess = 1024 if suffix == 'mkv' else 0  # which does not say where the last packet ends
  assert len(sound) <= len(back) <= len(sound) + excess
  info = probe_audio(path)
  assert (info.rate, info.channels) == (48_000, 1)
  assert info.seconds == pytest.approx(2.3, abs=0.03)  # of MP3 and Matroska, whole packets


@pytest.mark.parametrize('suffix', CODECS)
def test_a_part_is_the_part_of_the_whole(tmp_path, suffix):
  path = encode_sound(tmp_path / f'a.{suffix}', noise(8.0), codec=CODECS[suffix])
  whole = read_audio(path)
  for start, seconds in ((0.0, 0.5), (0.123, 1.0), (5.4321, 2.0), (7.5, 0.5)):
    part = read_audio(path, start=start, seconds=seconds)
    first = round(start * 48_000)
    expected = whole[first : first + round(seconds * 48_000)]
    assert part.shape == expected.shape
    off = 48 if suffix == 'mkv' else 0  # its times are rounded to a millisecond
    assert abs(delay(expected, part)) <= off
    if suffix == 'm4a':  # AAC replaces noise by noise of its own, never the same
      assert np.corrcoef(part[:, 0], expected[:, 0])[0, 1] > 0.99
    elif not off:
      np.testing.assert_allclose(part, expected, atol=1e-4)


def test_another_rate_is_resampled_in_time_and_without_artefacts(tmp_path):
  time = np.arange(44_100) / 44_100
  tone = 0.5 * np.sin(2 * np.pi * 9000 * time)
  write_wav(tmp_path / 'a.wav', tone[:, None].astype('f4'), 44_100)
  back = read_audio(tmp_path / 'a.wav')
  assert len(back) == 48_000
  expected = 0.5 * np.sin(2 * np.pi * 9000 * np.arange(48_000) / 48_000)
  error = (back[:, 0] - expected)[1000:-1000]
  # 16 bits leave noise of a step / sqrt(12); the level of full scale is off by one step in 32768.
  assert np.sqrt((error**2).mean()) < 1.5 * STEP


def test_parts_of_a_resampled_file_fit_together(tmp_path):
  write_wav(tmp_path / 'a.wav', noise(3.0, rate=44_100), 44_100)
  whole = read_audio(tmp_path / 'a.wav')
  part = read_audio(tmp_path / 'a.wav', start=1.5, seconds=1.0)
  np.testing.assert_allclose(part, whole[72_000:120_000], atol=2e-4)


@pytest.mark.parametrize('channels', [1, 2, 3, 6, 8, 16])
def test_any_number_of_channels_is_mixed_without_getting_louder(tmp_path, channels):
  path = pcm(tmp_path / 'a.wav', np.full((9600, channels), 32_000))
  assert probe_audio(path).channels == channels
  for wanted in (1, 2):
    back = read_audio(path, channels=wanted)
    assert back.shape == (9600, wanted)
    assert back.max() < 32_001 * STEP and back[4800].min() > 0.3
    if channels <= 2:
      np.testing.assert_allclose(back, 32_000 * STEP, atol=STEP)


def test_stereo_is_kept_and_its_mean_is_mono(tmp_path):
  sound = noise(0.3, channels=2)
  write_wav(tmp_path / 'a.wav', sound, 48_000)
  stereo = read_audio(tmp_path / 'a.wav', channels=2)
  np.testing.assert_allclose(stereo, sound, atol=2 * STEP)
  mono = read_audio(tmp_path / 'a.wav')
  np.testing.assert_allclose(mono, stereo.mean(1, keepdims=True), atol=1e-6)


@pytest.mark.parametrize('suffix', ['wav', 'flac', 'aiff'])
def test_channels_that_cancel_each_other_are_said(tmp_path, caplog, suffix):
  turned = noise(0.5) * np.float32([[1, -1]])
  path = encode_sound(tmp_path / f'a.{suffix}', turned, codec=CODECS[suffix])
  assert np.abs(read_audio(path, seconds=0.2)).max() < 0.01
  assert f'{path}: its two channels cancel each other in mono' in caplog.text
  caplog.clear()
  assert np.abs(read_audio(path, channels=2)).max() > 0.01
  read_audio(pcm(tmp_path / 'b.wav', np.zeros((4800, 2))))
  read_audio(encode_sound(tmp_path / 'c.flac', noise(0.5, channels=2), codec='flac'))
  assert not caplog.text


def test_a_stream_is_the_whole_in_pieces(tmp_path):
  path = encode_sound(tmp_path / 'a.m4a', noise(5.25, rate=44_100), 44_100)
  pieces = list(stream_audio(path, seconds=1.0))
  assert [len(piece) for piece in pieces] == [48_000] * 5 + [12_000]
  np.testing.assert_array_equal(np.concatenate(pieces), read_audio(path))
  (alone,) = stream_audio(path, seconds=10.0)
  assert len(alone) == 252_000


def test_time_zero_is_the_first_frame_of_the_video(tmp_path):
  frames, sound = np.zeros((75, 32, 32, 3), np.uint8), noise(2.0)
  for name in ('a.mp4', 'a.mkv'):
    for begin, late in ((0.0, 0.0), (1.2, 0.0), (0.0, 0.4), (1.2, 0.4)):
      path = encode_video(tmp_path / name, frames, sound, begin=begin, late=late)
      back = read_audio(path)
      # Matroska and the first packet of AAC: to a millisecond.
      assert delay(sound, back) == pytest.approx(48_000 * late, abs=48)
      assert probe_audio(path).seconds == pytest.approx(2.0 + late, abs=0.03)
      part = read_audio(path, start=late + 1.0, seconds=0.5)
      assert delay(sound[48_000:72_000], part) == pytest.approx(0, abs=48)


def test_the_sound_of_real_footage_is_read():
  path = real_clip('bigbuckbunny.mp4')
  info = probe_audio(path)
  assert (info.rate, info.channels) == (48_000, 6)
  sound = read_audio(path, start=2.0, seconds=3.0)
  assert sound.shape == (144_000, 1) and 0.001 < sound.std() < 0.5
  assert 'has no sound' in reason(real_clip('bikes.mp4'))


def test_a_little_may_be_missing_at_the_end_and_is_silence(tmp_path):
  write_wav(tmp_path / 'a.wav', noise(1.0), 48_000)
  back = read_audio(tmp_path / 'a.wav', start=0.5, seconds=0.55)
  assert len(back) == 26_400 and not back[24_000:].any() and back[:24_000].any()
  sentence = reason(tmp_path / 'a.wav', start=0.5, seconds=0.7)
  assert 'ends at 1.00 s, 1.20 s is needed' in sentence
  assert 'ends at 1.00 s, 9.00 s is needed' in reason(tmp_path / 'a.wav', start=8.0, seconds=1.0)


def test_files_without_a_sound_that_can_be_read_are_refused(tmp_path):
  pcm(tmp_path / 'nothing.wav', np.zeros((0, 1)))
  assert '0 s' in reason(tmp_path / 'nothing.wav')
  encode_video(tmp_path / 'silent.mp4', np.zeros((5, 32, 32, 3), np.uint8))
  assert 'has no sound' in reason(tmp_path / 'silent.mp4')
  pcm(tmp_path / 'many.wav', np.zeros((4800, 70)))
  assert reason(tmp_path / 'many.wav')


def test_samples_that_are_no_numbers_are_refused(tmp_path):
  samples = np.array([0.1, np.nan, 0.2] * 1000, '<f4').tobytes()
  form = struct.pack('<4sIHHIIHH', b'fmt ', 16, 3, 1, 48_000, 192_000, 4, 32)
  body = b'WAVE' + form + struct.pack('<4sI', b'data', len(samples)) + samples
  (tmp_path / 'a.wav').write_bytes(struct.pack('<4sI', b'RIFF', len(body)) + body)
  assert 'no numbers' in reason(tmp_path / 'a.wav')


def test_files_beyond_the_limits_are_refused(tmp_path):
  write_wav(tmp_path / 'a.wav', noise(2.0), 48_000)
  assert 'lasts 2 s, more than 1 s' in reason(tmp_path / 'a.wav', limits=Limits(seconds=1.0))
  assert 'took over 0 s' in reason(tmp_path / 'a.wav', limits=Limits(wall_seconds=0.0))


@pytest.mark.parametrize(
  'sound, words',
  [
    (np.zeros((0, 1), np.float32), '0 s'),
    (np.full((10, 1), np.nan, np.float32), 'no numbers'),
    (np.full((10, 1), -1.5, np.float32), r'reaches 1.5.*normalise'),
  ],
)
def test_what_cannot_be_written_is_explained_and_leaves_nothing(tmp_path, sound, words):
  with pytest.raises(DataError, match=words):
    write_wav(tmp_path / 'a.wav', sound, 48_000)
  assert not list(tmp_path.iterdir())
  with pytest.raises(DataError, match='is a folder'):
    write_wav(tmp_path, noise(0.1), 48_000)
