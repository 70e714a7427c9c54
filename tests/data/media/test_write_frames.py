"""Frames are written as they come, in constant memory, and the sound of a file stays as it was."""

import fractions
import hashlib
import logging
import os
import signal
import subprocess
import sys
import time

import av
import numpy as np
import pytest

from mgjax.core.errors import DataError
from mgjax.data.media.audio import read_audio
from mgjax.data.media.containers import Limits
from mgjax.data.media.transcode import write_frames
from mgjax.data.media.video import probe, read_clip, stream_frames, write_video
from tests.binaries import CHECKOUT
from tests.data.media.audio_files import delay, encode_sound, encode_video, noise, turn
from tests.data.media.real_clips import real_clip
from tests.data.media.test_soundtracks import FRAMES


def larger(path):
  """The frames of a video, twice as large."""
  for start, end, frame in stream_frames(path):
    yield start, end, frame.repeat(2, 0).repeat(2, 1)


def sounds(path):
  """A digest of the packets of each sound of a file."""
  found = {}
  with av.open(str(path)) as container:
    for packet in container.demux(*container.streams.audio):
      if packet.size:  # else it says that this is the end
        found.setdefault(packet.stream_index, hashlib.sha256()).update(bytes(packet))
  return [found[index].hexdigest() for index in sorted(found)]


SOURCES = {
  'aac in mp4': ('a.mp4', {}),
  'aac in mkv': ('a.mkv', {}),
  'late sound': ('a.mp4', {'late': 0.37}),
  'late sound in mkv': ('a.mkv', {'late': 0.37}),
  'early sound': ('a.mkv', {'begin': 1.2, 'late': -0.37}),
  'without b-frames': ('a.mp4', {'bf': '0'}),
}


def source(folder, name):
  file, options = SOURCES[name]
  return encode_video(folder / file, FRAMES, noise(2.4), **options)


@pytest.mark.parametrize('name', SOURCES)
def test_the_sound_is_copied_and_stays_in_time(tmp_path, name, caplog):
  video, out = source(tmp_path, name), tmp_path / 'out.mp4'
  write_frames(out, larger(video), fps=25, crf=12, sound_of=video)
  assert sounds(out) == sounds(video) != []
  before, after = read_audio(video), read_audio(out)
  # Matroska rounds times to a millisecond.
  assert abs(delay(before, after)) <= (48 if video.suffix == '.mkv' else 0)
  assert abs(len(before) - len(after)) <= 1024  # AAC's last packet is filled up
  info = probe(out)
  assert (info.width, info.height, info.frames) == (64, 64, 60)
  assert info.fps == pytest.approx(25)
  clips = (read_clip(path, frames=60, size=(64, 64), fps=25) for path in (video, out))
  errors = np.abs(np.subtract(*(clip.astype(int) for clip in clips)))
  assert errors.mean() < 2
  assert not caplog.records


def test_a_sound_that_begins_before_the_pictures_is_heard_before_them(tmp_path):
  video = source(tmp_path, 'early sound')
  write_frames(tmp_path / 'out.mp4', larger(video), fps=25, crf=12, sound_of=video)
  with av.open(str(tmp_path / 'out.mp4')) as container:
    pictures, heard = container.streams.video[0], container.streams.audio[0]
    lead = pictures.start_time * pictures.time_base - heard.start_time * heard.time_base
  assert float(lead) == pytest.approx(0.37, abs=2e-3)


def _two_sounds(path, codecs, languages):
  """A Matroska of pictures and sounds."""
  with av.open(str(path), 'w') as container:
    stream = container.add_stream('libx264', rate=25)
    stream.height, stream.width, stream.pix_fmt = 32, 32, 'yuv420p'
    heard = [container.add_stream(codec, rate=48_000, layout='stereo') for codec in codecs]
    for one, language in zip(heard, languages, strict=True):
      one.metadata['language'] = language
    for number, array in enumerate(FRAMES[:25]):
      picture = av.VideoFrame.from_ndarray(array)
      picture.pts, picture.time_base = number, fractions.Fraction(1, 25)
      container.mux(stream.encode(picture))
    container.mux(stream.encode(None))
    for seed, one in enumerate(heard):
      samples = np.ascontiguousarray(noise(1, channels=2, seed=seed).T)
      piece = av.AudioFrame.from_ndarray(samples, 'fltp', 'stereo')
      piece.sample_rate, piece.pts = 48_000, 0
      resampler = av.AudioResampler(one.codec_context.format, 'stereo', 48_000)
      for part in resampler.resample(piece):
        container.mux(one.encode(part))
      container.mux(one.encode(None))
  return path


def test_all_sounds_that_mp4_can_hold_are_kept_and_others_named(tmp_path, caplog):
  video = _two_sounds(tmp_path / 'a.mkv', ('aac', 'wavpack', 'ac3'), ('eng', 'deu', 'fra'))
  with caplog.at_level(logging.WARNING):
    write_frames(tmp_path / 'out.mp4', larger(video), fps=25, crf=12, sound_of=video)
  before = sounds(video)
  assert sounds(tmp_path / 'out.mp4') == [before[0], before[2]]
  (said,) = caplog.messages
  assert 'wavpack, is left out, since mp4 cannot hold it' in said
  with av.open(str(tmp_path / 'out.mp4')) as container:
    assert [one.metadata['language'] for one in container.streams.audio] == ['eng', 'fra']


@pytest.mark.parametrize('suffix', ['.mp4', '.mkv'])
def test_other_codecs_are_copied_too(tmp_path, suffix):
  for codec in ('mp3', 'opus', 'flac'):
    video = _two_sounds(tmp_path / f'{codec}{suffix}', (codec,), ('eng',))
    write_frames(tmp_path / 'out.mp4', larger(video), fps=25, crf=12, sound_of=video)
    assert sounds(tmp_path / 'out.mp4') == sounds(video) != []
    before, after = (read_audio(path) for path in (video, tmp_path / 'out.mp4'))
    assert abs(delay(before, after)) <= (0 if suffix == '.mp4' else 48)


def test_real_footage_keeps_its_sound(tmp_path):
  video, out = real_clip('bigbuckbunny.mp4'), tmp_path / 'out.mp4'
  frames = ((start, end, frame[::4, ::4]) for start, end, frame in stream_frames(video))
  write_frames(out, frames, fps=25, crf=20, sound_of=video)
  assert sounds(out) == sounds(video) != []
  np.testing.assert_array_equal(read_audio(out, channels=2), read_audio(video, channels=2))


def test_uneven_times_are_kept_within_a_tick(tmp_path):
  steps = np.random.default_rng(0).uniform(0.02, 0.09, 60)
  times = np.concatenate([[0], np.cumsum(steps)])
  frames = [(times[i], times[i + 1], frame) for i, frame in enumerate(FRAMES)]
  write_frames(tmp_path / 'a.mp4', frames, fps=18, crf=12, clock=90_000)
  write_frames(tmp_path / 'b.mp4', larger(tmp_path / 'a.mp4'), fps=18, crf=12, clock=48_000)
  found = [[start for start, _, _ in stream_frames(tmp_path / name)] for name in ('a.mp4', 'b.mp4')]
  np.testing.assert_allclose(found[0], times[:-1], atol=0.5 / 90_000 + 1e-9)
  np.testing.assert_allclose(found[1], found[0], atol=0.5 / 48_000 + 1e-9)
  assert len(found[0]) == len(found[1]) == 60


def test_a_turned_video_is_written_upright(tmp_path):
  write_video(tmp_path / 'a.mp4', np.zeros((4, 32, 64, 3), np.uint8), fps=8)
  video = turn(tmp_path / 'a.mp4')
  write_frames(tmp_path / 'c.mp4', larger(video), fps=8, crf=12, sound_of=video)
  with av.open(str(tmp_path / 'c.mp4')) as container:
    (frame, *_) = container.decode(video=0)
    assert (frame.width, frame.height, frame.rotation) == (64, 128, 0)


def test_sound_of_a_file_without_any_is_none(tmp_path):
  write_video(tmp_path / 'a.mp4', FRAMES, fps=25)
  write_frames(
    tmp_path / 'b.mp4', larger(tmp_path / 'a.mp4'), fps=25, crf=12, sound_of=tmp_path / 'a.mp4'
  )
  assert not probe(tmp_path / 'b.mp4').has_audio


def test_pictures_may_take_the_place_of_their_own_file(tmp_path):
  video = encode_video(tmp_path / 'a.mp4', FRAMES, noise(2.4))
  before = sounds(video)
  write_frames(video, larger(video), fps=25, crf=12, sound_of=video)
  assert sounds(video) == before and probe(video).width == 64


def test_what_fails_leaves_the_old_file_and_its_own_error(tmp_path):
  out = tmp_path / 'out.mp4'
  out.write_bytes(b'old')

  def broken():
    yield 0, 1, FRAMES[0]
    raise ValueError('the model fell over')

  with pytest.raises(ValueError, match='the model fell over'):
    write_frames(out, broken(), fps=25, crf=12)
  with pytest.raises(DataError, match='no frame to write'):
    write_frames(out, [], fps=25, crf=12)
  with pytest.raises(DataError, match='no frames of 20000 x 2'):
    write_frames(out, [(0, 1, np.zeros((2, 20_000, 3), np.uint8))], fps=25, crf=12)
  with pytest.raises(DataError, match='there is no such file'):
    write_frames(out, [(0, 1, FRAMES[0])], fps=25, crf=12, sound_of=tmp_path / 'none.mp4')
  assert out.read_bytes() == b'old' and [path.name for path in tmp_path.iterdir()] == ['out.mp4']


WRITING = r"""
import re, sys
import numpy as np
from mgjax.data.media.transcode import write_frames
count, path, source = int(sys.argv[1]), sys.argv[2], sys.argv[3]
field = np.random.default_rng(0).integers(0, 256, (512, 512, 3), np.uint8)
def frames():
  for i in range(count):
    if i == 60:
      print('writing', flush=True)
    y, x = 3 * i % 256, 5 * i % 256
    yield i / 25, (i + 1) / 25, field[y:y + 256, x:x + 256]
write_frames(path, frames(), fps=25, crf=40, sound_of=source)
# Not getrusage: its peak begins with that of the process that started this one.
print(re.search(r'VmHWM:\s+(\d+)', open('/proc/self/status').read())[1])
"""


def test_one_that_is_killed_leaves_no_half_file(tmp_path):
  video = encode_video(tmp_path / 'a.mp4', FRAMES, noise(2.4))
  command = [sys.executable, '-c', WRITING, '100000', str(tmp_path / 'out.mp4'), str(video)]
  with subprocess.Popen(command, cwd=CHECKOUT, stdout=subprocess.PIPE, text=True) as process:
    assert process.stdout.readline() == 'writing\n'
    for ending in (signal.SIGINT, signal.SIGKILL):
      process.send_signal(ending)
      time.sleep(0.1)
    process.wait(60)
  assert not os.path.exists(tmp_path / 'out.mp4')


@pytest.mark.slow
def test_memory_does_not_grow_with_the_length(tmp_path):
  encode_video(tmp_path / 'few.mp4', FRAMES[:1], noise(4))
  encode_video(tmp_path / 'many.mp4', FRAMES[:1], noise(80))
  peaks = []
  for count, name in ((100, 'few'), (2000, 'many')):
    out = tmp_path / f'out-{name}.mp4'
    command = [sys.executable, '-c', WRITING, str(count), str(out), str(tmp_path / f'{name}.mp4')]
    said = subprocess.check_output(command, cwd=CHECKOUT, text=True)
    peaks.append(int(said.split()[-1]))
    assert probe(out, Limits(wall_seconds=600)).frames == count
  assert peaks[1] <= 1.1 * peaks[0], peaks


def test_a_file_of_sound_alone_gives_its_sound(tmp_path):
  sound = encode_sound(tmp_path / 'a.m4a', noise(1.0))
  frames = ((i / 25, (i + 1) / 25, FRAMES[i]) for i in range(25))
  write_frames(tmp_path / 'out.mp4', frames, fps=25, crf=12, sound_of=sound)
  assert sounds(tmp_path / 'out.mp4') == sounds(sound)
