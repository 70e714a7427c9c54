"""The same samples from files and from records of them; buckets, splits and lost shards."""

import pickle

import numpy as np
import pytest

from mgjax.core.errors import ConfigError, DataError, StorageError
from mgjax.data.audio_sources import make_audio_sources
from mgjax.data.broken_samples import Replacing
from mgjax.data.ingest.convert import convert
from mgjax.data.ingest.open_inputs import open_inputs
from mgjax.data.media.video import write_video
from mgjax.data.settings import audio_shapes, data_settings, video_shapes
from mgjax.data.sources import make_sources
from tests.data.media.audio_files import encode_video, noise
from tests.data.media.test_frame_pixels import write_interlaced
from tests.tensors import same_each

BUCKETS = {
  'wide': {'frames': 6, 'height': 16, 'width': 32, 'fps': (4, 12)},
  'tall': {'frames': 6, 'height': 32, 'width': 16, 'fps': (4, 12)},
  'square': {'frames': 6, 'height': 16, 'width': 16, 'fps': (4, 12)},
  'image': {'frames': 1, 'height': 16, 'width': 16},
}
SECONDS = {'a': 1.0, 'b': 0.5, 'c': 4.0}


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
  """Three clips of noise: two wide ones, one tall, at 16 frames a second."""
  folder = tmp_path_factory.mktemp('clips')
  for index, (name, seconds) in enumerate(SECONDS.items()):
    size = (48, 24) if name == 'b' else (24, 48)
    frames = np.random.default_rng(index).integers(0, 256, (round(16 * seconds), *size, 3))
    write_video(folder / f'{name}.mp4', frames.astype(np.uint8), 16)
  return folder


@pytest.fixture(scope='module')
def records(folder, tmp_path_factory):
  directory = tmp_path_factory.mktemp('records') / 'clips'
  convert(open_inputs(folder), directory, rows_per_shard=2)
  return directory


def sources(path, kind='clips', buckets=BUCKETS, split='train', **more):
  data = {'kind': kind, 'path': str(path), 'fps': 8, 'intervals': (1, 2), **more}
  return make_sources(data_settings(data), video_shapes(buckets, 8), split)


def same(one, other):
  assert one.keys() == other.keys()
  for name, source in one.items():
    same_each(source, other[name])


def test_records_hold_the_samples_of_the_files_they_were_made_of(folder, records):
  same(sources(folder), sources(records, 'records'))
  same(pickle.loads(pickle.dumps(sources(records, 'records'))), sources(folder))


def test_each_clip_is_in_the_bucket_of_its_shape_at_a_rate_that_takes_all_of_it(folder):
  found = sources(folder)
  assert list(found) == ['wide', 'tall', 'image']  # no clip is square
  assert {found['wide'][i]['caption'] for i in range(len(found['wide']))} == {'a', 'c'}
  wide = found['wide']
  rates = {wide[i]['caption']: wide[i]['fps'] for i in range(len(wide))}
  # 6 frames of 1 s at 6 a second; of 4 s at 4 a second, the lowest rate, and windows of 1.5 s
  # with every frame or, where twice as long fits, every second one.
  assert rates['a'] == 6.0 and rates['c'] in (4.0, 2.0)
  assert found['tall'][0]['fps'] == 12.0 and found['tall'][0]['video'].shape == (6, 32, 16, 3)
  assert 'fps' not in found['image'][0] and found['image'][0]['source'] == 'a.mp4'
  assert len(found['image']) == 1 + 1 + 4


def test_other_clips_validate_at_one_interval(folder, tmp_path):
  write_video(tmp_path / 'v.mp4', np.zeros((64, 16, 16, 3), np.uint8), 16)
  found = sources(folder, split='validation', validation_path=str(tmp_path))
  assert list(found) == ['square', 'image']
  assert {found['square'][i]['fps'] for i in range(len(found['square']))} == {4.0}


def test_the_fingerprint_is_of_the_content_and_not_of_the_place(folder, records, tmp_path):
  first = sources(folder)['wide'].fingerprint
  moved = tmp_path / 'moved'
  moved.mkdir()
  for name in SECONDS:
    (moved / f'{name}.mp4').write_bytes((folder / f'{name}.mp4').read_bytes())
  assert sources(moved)['wide'].fingerprint == first
  (moved / 'a.txt').write_text('another caption')
  assert sources(moved)['wide'].fingerprint != first
  kept = sources(records, 'records')
  assert kept['wide'].fingerprint != kept['tall'].fingerprint


def test_a_damaged_row_is_a_broken_sample_and_a_lost_shard_is_not(folder, tmp_path):
  convert(open_inputs(folder), tmp_path / 'records', rows_per_shard=1)
  first, second, _ = sorted((tmp_path / 'records').glob('*.arrayrecord'))
  data = bytearray(first.read_bytes())
  data[data.index(b'mdat') + 100] ^= 1
  first.write_bytes(data)
  images = sources(tmp_path / 'records', 'records')['image']
  with pytest.raises(DataError, match=r'damaged at its row 0') as caught:
    images[0]
  assert not isinstance(caught.value, StorageError)
  assert Replacing(images)[0]['replaced'] == 1
  second.unlink()
  with pytest.raises(StorageError, match=second.name):
    Replacing(images)[1]
  with pytest.raises(StorageError, match=second.name):
    sources(tmp_path / 'records', 'records')
  rest = sources(tmp_path / 'records', 'records', skip_missing=True)
  assert list(rest) == ['wide', 'image'] and len(rest['image']) == 1 + 4


def test_sounds_come_from_records_with_or_without_their_pictures(tmp_path):
  frames = np.zeros((50, 16, 16, 3), np.uint8)
  (tmp_path / 'clips').mkdir()
  encode_video(tmp_path / 'clips' / 'loud.mp4', frames, noise(2.0))
  encode_video(tmp_path / 'clips' / 'silent.mp4', frames)
  convert(open_inputs(tmp_path / 'clips'), tmp_path / 'records')
  pictures = {'height': 16, 'width': 16}
  for shape in ({'seconds': 1.0}, {'seconds': 1.0, **pictures}):
    found = {}
    for kind, path in (
      ('records', 'records'),
      ('clips' if 'height' in shape else 'sounds', 'clips'),
    ):
      data = {'kind': kind, 'path': str(tmp_path / path), 'fps': 25}
      shapes = audio_shapes({'second': shape})
      found[kind] = make_audio_sources(data_settings(data), shapes, 'train')['second']
    first, second = found.values()
    assert len(first) == len(second) == 2
    for index in range(2):
      assert first[index].keys() == second[index].keys() >= {'audio', 'caption', 'source'}
      for key, value in first[index].items():
        np.testing.assert_array_equal(value, second[index][key])


def test_what_cannot_be_opened_is_explained(folder, records, tmp_path):
  with pytest.raises(ConfigError, match="unknown data kind 'clip'; expected one of digits"):
    sources(folder, 'clip')
  with pytest.raises(ConfigError, match=r'data\.path is empty'):
    sources('', 'records')
  with pytest.raises(DataError, match='there are no records at'):
    sources(tmp_path / 'none', 'records')
  with pytest.raises(ConfigError, match=r'holds records; .*--config\.data\.kind=records'):
    sources(records)
  with pytest.raises(DataError, match='no usable clip'):
    sources(folder, buckets={'long': {'frames': 99, 'height': 16, 'width': 16}})


def test_two_small_worlds_are_other_data():
  def fingerprints(split='train', fps=8, audio=False, **fields):
    data = data_settings({'kind': 'digits', 'fps': fps, 'digits': {'motions': ('fall',), **fields}})
    shape = {'frames': 8, 'height': 32, 'width': 32}
    if audio:
      shapes = audio_shapes({'a': {'seconds': 1.0}, 'b': {'seconds': 0.5}})
      found = make_audio_sources(data, shapes, split)
    else:
      shapes = video_shapes({'a': shape, 'b': shape | {'frames': 1}}, fps)
      found = make_sources(data, shapes, split)
    return [Replacing(source).fingerprint for source in found.values()]

  for audio in (False, True):
    first = fingerprints(audio=audio)
    assert fingerprints(audio=audio) == first and first[0] != first[1]
    others = [{'split': 'validation'}, {'seed': 1}, {'background': 'mosaic'}, {'digit_size': 10}]
    for other in (*others, {'fps': 16}):
      assert fingerprints(audio=audio, **other)[0] != first[0], other


def test_a_folder_that_is_trained_on_says_what_it_lacks(tmp_path, caplog):
  for index, caption in enumerate((None, 'x' * 5005, 'a ball')):
    write_video(tmp_path / f'{index}.mp4', np.zeros((64, 16, 16, 3), np.uint8), 16)
    if caption:
      (tmp_path / f'{index}.txt').write_text(caption)
  for _ in range(2):
    found = sources(tmp_path)['square']
  assert caplog.text.count('1 of 3 clips have no caption, the first is 0.mp4') == 1
  assert caplog.text.count('1 of 3 clips have a caption that reaches 4096 characters') == 1
  assert {found[index]['caption'] for index in range(len(found))} == {'0', 'x' * 4096, 'a ball'}
  assert 'repeat some' not in caplog.text
  slow = {'slow': {'frames': 6, 'height': 16, 'width': 16, 'fps': (20, 24)}}
  sources(tmp_path, buckets=slow)
  assert '3 of 3 clips have fewer frames a second than their bucket takes' in caplog.text
  with pytest.raises(DataError, match='3 x would repeat frames'):
    sources(tmp_path, buckets=slow, repeats=0.1)


def test_interlaced_clips_of_a_folder_are_counted(tmp_path, caplog):
  write_interlaced(tmp_path / 'a.mp4', **{'x264-params': 'interlaced=1:tff=1'})
  write_video(tmp_path / 'b.mp4', np.zeros((32, 16, 16, 3), np.uint8), 16)
  for name in 'ab':
    (tmp_path / f'{name}.txt').write_text(name)
  sources(tmp_path, buckets={'image': BUCKETS['image']})
  assert '1 of 2 clips are interlaced' in caplog.text and 'no caption' not in caplog.text
