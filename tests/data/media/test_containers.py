"""A file in memory is read as one on the disk is, and refused with the same sentences."""

import numpy as np
import pytest

from mgjax.data.media.audio import probe_audio, read_audio, stream_audio, write_wav
from mgjax.data.media.containers import Blob
from mgjax.data.media.video import probe, read_clip
from tests.data.media.real_clips import real_clip


def in_memory(path):
  return Blob(f'memory of {path.name}', memoryview(path.read_bytes()))


@pytest.mark.parametrize('name', ['bikes.mp4', 'bigbuckbunny.mp4', 'carphone_pristine.mp4'])
def test_pictures_in_memory_are_those_on_the_disk(name):
  path = real_clip(name)
  assert probe(in_memory(path)) == probe(path)
  wanted = {'frames': 8, 'size': (48, 64), 'fps': 12.0, 'start': 1.5}
  np.testing.assert_array_equal(read_clip(in_memory(path), **wanted), read_clip(path, **wanted))


def test_sound_in_memory_is_that_on_the_disk(tmp_path):
  wave = np.sin(np.arange(24_000, dtype=np.float32) / 20)[:, None] / 2
  write_wav(tmp_path / 'a.wav', wave, 16_000)
  for path in (tmp_path / 'a.wav', real_clip('bigbuckbunny.mp4')):
    assert probe_audio(in_memory(path)) == probe_audio(path)
    np.testing.assert_array_equal(
      read_audio(in_memory(path), start=0.5, seconds=0.75),
      read_audio(path, start=0.5, seconds=0.75),
    )
  pieces = list(stream_audio(in_memory(tmp_path / 'a.wav'), rate=16_000, seconds=0.4))
  assert sum(map(len, pieces)) == 24_000


def test_a_blob_is_known_by_its_name_and_shows_no_bytes():
  blob = Blob('pets/cat.mp4', bytes(1000))
  assert str(blob) == 'pets/cat.mp4' and repr(blob) == "Blob(name='pets/cat.mp4')"
