"""Rows of clips: whole files, read back as they were, or encoded anew for reads at any moment."""

import fractions
import io
import struct

import av
import numpy as np
import pytest

from mgjax.core.errors import DataError
from mgjax.data.ingest.clip_check import COLUMNS, WHOLE, make_row, open_row
from mgjax.data.media.audio import probe_audio, read_audio, write_soundtrack
from mgjax.data.media.containers import Blob, Limits
from mgjax.data.media.transcode import reencode
from mgjax.data.media.video import probe, read_clip, stream_frames, write_video
from mgjax.data.records.rows import decode_row, encode_row, text_key
from tests.data.media.real_clips import real_clip
from tests.data.media.test_video import encode, numbered, numbered_file, numbers, smooth

CLIPS = ('bikes.mp4', 'bigbuckbunny.mp4', 'carphone_pristine.mp4')


def decibels(one, other):
  error = np.mean((one.astype(np.float32) - other) ** 2)
  return 10 * np.log10(255**2 / max(error, 1e-9))


@pytest.mark.parametrize('name', CLIPS)
def test_a_row_is_the_file_and_what_it_was_found_to_be(name):
  data, info = real_clip(name).read_bytes(), probe(real_clip(name))
  row = decode_row(encode_row(make_row(data, 'a caption', name)))
  assert row['media'].tobytes() == data
  assert [row[name] for name in COLUMNS] == [
    info.seconds,
    info.fps,
    info.height,
    info.width,
    name.startswith('big'),
    WHOLE,
  ]
  assert (row['caption'], row['source'], row['text_key']) == (
    'a caption',
    name,
    text_key('a caption'),
  )
  wanted = {'frames': 4, 'size': (64, 96), 'fps': 12.0, 'start': 1.0}
  np.testing.assert_array_equal(
    read_clip(open_row(row), **wanted), read_clip(real_clip(name), **wanted)
  )


def test_sound_counts_only_if_it_lasts(tmp_path):
  write_video(tmp_path / 'a.mp4', smooth(25), fps=12.5)
  whole = np.zeros((2 * 16_000, 1), np.float32)
  for seconds, sounding in ((2.0, True), (1.95, True), (1.0, False)):
    sound_file = tmp_path / f'{seconds}.mkv'
    with av.open(str(sound_file), 'w') as target, av.open(str(tmp_path / 'a.mp4')) as source:
      pictures = target.add_stream_from_template(source.streams.video[0])
      stream = target.add_stream('pcm_s16le', rate=16_000, layout='mono')
      for packet in source.demux(video=0):
        if packet.dts is not None:
          packet.stream = pictures
          target.mux(packet)
      samples = (whole[: round(seconds * 16_000)].T * 0).astype(np.int16)
      frame = av.AudioFrame.from_ndarray(samples, 's16', 'mono')
      frame.sample_rate = 16_000
      target.mux(stream.encode(frame))
      target.mux(stream.encode(None))
    assert make_row(sound_file.read_bytes(), 'c', 's')['sounding'] is sounding


def test_a_clip_that_ends_before_it_counts_is_refused(tmp_path):
  data = numbered_file(tmp_path, count=50).read_bytes()
  assert make_row(data, 'c', 's', start=1.5)['start'] == 1.5
  with pytest.raises(DataError, match=r'^s: lasts 2\.00 s, but counts from 2\.50 s on'):
    make_row(data, 'c', 's', start=2.5)


def test_damage_in_the_middle_is_found_by_decoding_all(tmp_path):
  path = numbered_file(tmp_path, g='10')
  with av.open(str(path)) as container:
    places = [(p.pos, p.size) for p in container.demux(video=0) if p.size]
  data = bytearray(path.read_bytes())
  start, size = places[100]
  data[start : start + size] = b'\xff' * size
  assert make_row(bytes(data), 'c', 's')['seconds'] == pytest.approx(8.0)
  with pytest.raises(DataError, match=r'^s: '):
    make_row(bytes(data), 'c', 's', full=True)
  assert make_row(path.read_bytes(), 'c', 's', full=True) is not None


@pytest.mark.parametrize(
  'name',
  [pytest.param(name, marks=[pytest.mark.slow] * name.startswith('bigbuck')) for name in CLIPS],
)
def test_encoded_anew_every_frame_is_where_it_was(name):
  path = real_clip(name)
  limits = Limits(pixels=1280 * 720)
  blob = Blob(name, reencode(path, gop=16, limits=limits))
  before, after = probe(path), probe(blob)
  assert (after.width - before.width, after.height - before.height) == (before.width % 2, 0)
  assert after.seconds == pytest.approx(before.seconds, abs=1e-3)
  assert after.fps == pytest.approx(before.fps, rel=1e-4)
  count = 0
  for one, other in zip(stream_frames(path), stream_frames(blob), strict=True):
    assert other[:2] == pytest.approx(one[:2], abs=1e-4)
    if count % 16 == 0:
      assert decibels(other[2][:, : before.width], one[2]) > 30
    count += 1
  assert count == before.frames and after.has_audio == before.has_audio
  if after.has_audio:  # of six channels
    assert probe_audio(blob).channels == 2
    assert probe_audio(blob).seconds == pytest.approx(before.seconds, abs=0.05)
  with av.open(io.BytesIO(blob.data)) as container:
    keys = [i for i, packet in enumerate(container.demux(video=0)) if packet.is_keyframe]
  assert max(np.diff([*keys, count])) <= 16


def test_encoded_anew_the_sound_is_kept_in_time(tmp_path):
  write_video(tmp_path / 'a.mp4', smooth(50), fps=25)
  click = np.zeros((2 * 44_100, 2), np.float32)
  click[44_100 : 44_100 + 400] = 0.8
  write_soundtrack(tmp_path / 'b.mp4', tmp_path / 'a.mp4', [click], 44_100)
  blob = Blob('b', reencode(tmp_path / 'b.mp4'))
  info = probe_audio(blob)
  assert (info.rate, info.channels) == (44_100, 2)
  heard = np.abs(read_audio(blob, rate=44_100)).max(axis=1)
  # AAC spreads a click over a block of 1024 samples at the most.
  assert abs(int(np.argmax(heard > 0.4)) - 44_100) < 1024


def test_odd_and_irregular_videos_are_encoded_whole_and_in_time(tmp_path):
  frames = smooth(12, 33, 47)
  with av.open(str(tmp_path / 'a.mkv'), 'w') as container:
    stream = container.add_stream('ffv1', rate=25)
    stream.height, stream.width, stream.pix_fmt = 33, 47, 'bgr0'
    times = np.cumsum([0, 40, 200, 20, 33, 33, 500, 40, 40, 40, 40, 40]).tolist()
    stream.codec_context.time_base = fractions.Fraction(1, 1000)
    for time, array in zip(times, frames, strict=True):
      frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(array)).reformat(format='bgr0')
      frame.pts = time
      container.mux(stream.encode(frame))
    container.mux(stream.encode(None))
  blob = Blob('a', reencode(tmp_path / 'a.mkv'))
  assert (probe(blob).height, probe(blob).width) == (34, 48)
  shown = [start for start, _, _ in stream_frames(blob)]
  assert shown == pytest.approx([time / 1000 for time in times], abs=1e-4)


def test_a_turned_video_is_encoded_upright(tmp_path):
  write_video(tmp_path / 'a.mp4', smooth(4, 32, 64), fps=8)
  data = bytearray((tmp_path / 'a.mp4').read_bytes())
  matrix = data.find(b'tkhd') + 44
  data[matrix : matrix + 36] = struct.pack('>9i', 0, 1 << 16, 0, -(1 << 16), 0, 0, 0, 0, 1 << 30)
  turned, anew = Blob('a', bytes(data)), Blob('b', reencode(Blob('a', bytes(data))))
  assert (probe(anew).height, probe(anew).width) == (64, 32)
  for (*_, one), (*_, other) in zip(stream_frames(turned), stream_frames(anew), strict=True):
    assert decibels(one, other) > 30


def test_a_video_with_too_many_frames_is_refused(tmp_path):
  path = encode(tmp_path / 'a.mp4', numbered(60))
  with pytest.raises(DataError, match='has over 40 frames; cut it into clips first'):
    reencode(path, limits=Limits(frames=40))
  with pytest.raises(DataError, match='has over 40 frames'):
    make_row(path.read_bytes(), 'c', 's', full=True, limits=Limits(frames=40))
  assert numbers(read_clip(Blob('a', reencode(path, gop=4)), frames=3, size=(64, 64), fps=25)) == [
    0,
    1,
    2,
  ]


@pytest.mark.parametrize(
  ('size', 'side', 'expected'),
  [((48, 64), 24, (24, 32)), ((64, 36), 18, (32, 18)), ((48, 64), 100, (48, 64))],
)
def test_encoded_anew_the_shorter_side_may_shrink(tmp_path, size, side, expected):
  write_video(tmp_path / 'a.mp4', smooth(4, *size), fps=8)
  small = Blob('a', reencode(tmp_path / 'a.mp4', side=side))
  assert (probe(small).height, probe(small).width) == expected
  whole = read_clip(tmp_path / 'a.mp4', frames=4, size=expected, fps=8)
  assert decibels(read_clip(small, frames=4, size=expected, fps=8), whole) > 30
