"""How long a clip is, its packets say: no number in a header makes more of it than there is."""

import struct

import numpy as np
import pytest
from PIL import Image

from mgjax.core.errors import DataError
from mgjax.data.buckets import Shape, usable_clips
from mgjax.data.clip_index import IndexedClip, index_of_clips
from mgjax.data.clips import VideoClips, probe_video
from mgjax.data.media.containers import Blob, Limits
from mgjax.data.media.video import probe, stream_clip, write_video
from tests.data.media.hostile_clips import encoded
from tests.hostile.media_formats import boxes, elements

SHAPES = {'video': Shape(4, 16, 16, (16.0, 16.0)), 'image': Shape(1, 16, 16, (1.0, 1.0))}
PACKETS = 8


def frames(count=PACKETS):
  return np.random.default_rng(0).integers(0, 255, (count, 24, 32, 3)).astype(np.uint8)


def video(container, times=None):
  codec = {'mp4': 'libx264', 'matroska': 'libx264', 'webm': 'libvpx-vp9'}[container]
  return encoded(frames(), container, codec, 'yuv420p', times, {})


def windows(folder, data):
  """How many windows a clip gives to training on videos and on images."""
  (folder / 'clip').write_bytes(data)
  clips = index_of_clips([IndexedClip('clip', 'c', **probe_video(folder / 'clip', SHAPES))])
  return [
    len(VideoClips(clips, shape)) if usable_clips(clips, shape)[0] else 0
    for shape in SHAPES.values()
  ]


def sentence(call, *arguments):
  with pytest.raises(DataError) as refusal:
    call(*arguments)
  return str(refusal.value)


def test_one_damaged_time_stamp_does_not_make_a_clip_of_days(tmp_path):
  data = video('mp4')
  assert windows(tmp_path, data) == [1, 1]
  # stts: its length, name, version and how many entries; of each, how many frames last how long.
  at = data.find(b'stts') + 12
  assert data[at : at + 8] == struct.pack('>2I', PACKETS, 512)  # at 12,800 ticks a second
  for seconds, reason in ((160_000, 'lasts 160000 s, more than'), (1700, 'without a packet')):
    damaged = data[: at + 4] + struct.pack('>I', seconds * 12_800) + data[at + 8 :]
    assert reason in sentence(probe, Blob('a', damaged))
  clock = data.find(b'mdhd') + 16
  damaged = data[:clock] + struct.pack('>I', 3) + data[clock + 4 :]
  assert 'without a packet' in sentence(probe, Blob('a', damaged))


def test_a_matroska_without_a_duration_is_as_long_as_its_packets_and_not_a_million_seconds():
  named = video('matroska')
  place, size = [part for part in elements(named) if named[part.start] == 0xA3][-1].numbers[2]
  scale = named.find(bytes.fromhex('2ad7b1')) + 4
  assert size == 2
  for data in (named, named.replace(bytes.fromhex('4489'), bytes.fromhex('4488'), 1)):
    assert probe(Blob('a', data)).seconds == pytest.approx(0.32)
    far = bytearray(data)
    far[place : place + 2] = b'\x7f\xff'  # 32.7 s after its cluster
    assert 'without a packet' in sentence(probe, Blob('a', bytes(far)))
    far[scale : scale + 3] = b'\xff\xff\xff'  # ticks of 17 ms and not of 1 ms
    assert 'without a packet' in sentence(probe, Blob('a', bytes(far)))


@pytest.mark.parametrize(('container', 'parse'), [('mp4', boxes), ('matroska', elements)])
def test_no_number_of_a_header_gives_more_windows_than_packets(tmp_path, container, parse):
  data = video(container)
  places = [number for part in parse(data) for number in part.numbers]
  assert len(places) > 60
  used = 0
  for place, size in places:
    damaged = bytearray(data)
    damaged[place : place + size] = (0x00FF0000 % (1 << 8 * size)).to_bytes(size, 'big')
    try:
      found = windows(tmp_path, bytes(damaged))
    except DataError:
      continue
    assert max(found) <= PACKETS
    used += 1
  assert used > len(places) / 2


def test_rare_frames_are_no_damage(tmp_path):
  times = [0, 100, 600, 800, 2000, 2100, 2200, 4900]
  # Matroska says that it has 25 frames a second.
  assert 'a second by their time stamps' in sentence(probe, Blob('a', video('matroska', times)))
  slides = video('mp4', times)
  assert probe(Blob('a', slides)).seconds == pytest.approx(49, abs=1)
  assert windows(tmp_path, slides) == [PACKETS, PACKETS]
  pictures = [Image.fromarray(frame) for frame in frames(3)]
  pictures[0].save(tmp_path / 'a.gif', save_all=True, append_images=pictures[1:], duration=20_000)
  assert probe(tmp_path / 'a.gif').seconds == pytest.approx(60)
  assert windows(tmp_path, (tmp_path / 'a.gif').read_bytes()) == [3, 3]
  assert 'more than 10 s' in sentence(probe, tmp_path / 'a.gif', Limits(gap=10.0))


def test_measured_seconds_have_a_limit(tmp_path):
  data = Blob('a', video('matroska', [0, 100, 200, 300, 400, 500, 600, 700]))
  assert 'lasts 7 s, more than 5 s' in sentence(probe, data, Limits(seconds=5.0))
  write_video(tmp_path / 'a.mp4', frames(), 1)
  long = lambda: list(stream_clip(tmp_path / 'a.mp4', size=(8, 8), fps=4, limits=Limits(seconds=5)))  # noqa: E731
  assert 'more than 5 s' in sentence(long)
