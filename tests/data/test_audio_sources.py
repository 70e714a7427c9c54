"""Sources of sound: windows of the asked length, a function of the index, in step with video."""

import json
import logging
import pickle

import numpy as np
import pytest

from mgjax.core.errors import ConfigError, DataError
from mgjax.data.audio_sources import make_audio_sources
from mgjax.data.media.audio import read_audio, write_wav
from mgjax.data.settings import audio_shapes, data_settings
from mgjax.data.source import Source
from mgjax.lab.worlds.digits.clips import Digits
from mgjax.lab.worlds.digits.scene import AUDIBLE
from tests.data.media.audio_files import delay, encode_sound, encode_video, noise

DIGITS = {'kind': 'digits', 'fps': 25, 'digits': {'motions': [*AUDIBLE, 'still']}}
WORLD = {'motions': (*AUDIBLE, 'still'), 'fps': 25, 'sound': True, 'frames': 50}


def sources_of(data, buckets, split, report=None):
  return make_audio_sources(data_settings(data), audio_shapes(buckets), split, report)


def digits(split='train', **shape):
  return sources_of(DIGITS, {'bucket': shape}, split)['bucket']


def test_a_whole_clip_is_the_clip_with_its_sound():
  source = digits(seconds=2.0, height=32, width=48)
  assert isinstance(source, Source)
  clips = Digits(**WORLD, size=(32, 48))
  for index in (0, 5):
    sample, clip = source[index], clips[index]
    assert sample.keys() == clip.keys()
    for name in ('video', 'audio'):
      np.testing.assert_array_equal(sample[name], clip[name])
    np.testing.assert_allclose(sample['events'], clip['events'], rtol=1e-12)
    assert sample['video'].shape == (50, 32, 48, 3) and sample['audio'].shape == (96_000, 1)


def test_without_a_size_there_is_no_video_but_the_same_sound():
  with_pictures, without = digits(seconds=2.0, height=32, width=32), digits(seconds=2.0)
  for index in range(3):
    np.testing.assert_array_equal(with_pictures[index]['audio'], without[index]['audio'])
    assert with_pictures[index].keys() - without[index].keys() == {'video'}


def test_a_window_is_a_function_of_its_index():
  source = digits(seconds=0.4)
  copy = pickle.loads(pickle.dumps(source))
  for index in (9, 2, 9):
    np.testing.assert_array_equal(source[index]['audio'], copy[index]['audio'])
  with pytest.raises(IndexError):
    source[len(source)]


def test_short_windows_hold_events_more_often_than_silence():
  source = digits(seconds=0.4)
  clips = Digits(**WORLD)
  held = [bool(source[i]['events'].size) for i in range(400) if clips.listen(i)['events'].size]
  # Of the clips with events, 70% of the windows and those of the rest that meet one by chance.
  assert np.mean(held) > 0.7 and not np.all(held)
  offsets = np.array([source[i]['events'][0] for i in range(400) if source[i]['events'].size])
  assert offsets.min() < 0.04 and offsets.max() > 0.36


@pytest.mark.parametrize('size', [{}, {'height': 16, 'width': 16}])
def test_events_of_a_window_are_where_its_sound_begins(size):
  source = digits(seconds=0.4, **size)
  for index in range(60):
    sample = source[index]
    assert sample['audio'].shape == (19_200, 1)
    for event in sample['events']:
      first = round(event * 48_000)
      # The click is louder than what rings on, by more than a sample can differ from the next.
      before = np.abs(np.diff(sample['audio'][max(0, first - 40) : first, 0])).max(initial=0)
      assert abs(sample['audio'][first, 0] - sample['audio'][max(first - 1, 0), 0]) > before or (
        first == 0 or (np.abs(sample['events'] - event) < 0.005).sum() > 1
      )


def test_windows_with_video_begin_on_a_frame_of_their_clip():
  source = digits(seconds=0.4, height=32, width=32)
  for index in range(10):
    sample, clip = source[index], Digits(**WORLD)[index]
    assert sample['video'].shape == (10, 32, 32, 3)
    starts = [
      start
      for start in range(41)
      if (clip['video'][start : start + 10] == sample['video']).all()
      and (clip['audio'][1920 * start :][:19_200] == sample['audio']).all()
    ]
    assert starts


def test_validation_shows_other_handwriting_and_captions():
  train = {digits(seconds=2.0)[i]['caption'] for i in range(300)}
  source = digits('validation', seconds=2.0)
  assert len(source) == 4096
  assert not train & {source[i]['caption'] for i in range(100)}


@pytest.mark.parametrize(
  'data, shape, words',
  [
    ({**DIGITS, 'kind': 'songs'}, {'seconds': 2.0}, "unknown kind of sound data 'songs'.*digits"),
    ({'kind': 'sounds', 'path': ''}, {'seconds': 1.0}, 'path is empty'),
    ({'kind': 'clips', 'path': 'x', 'fps': 25}, {'seconds': 1.0}, 'needs height and width'),
    (DIGITS, {'seconds': 0.42, 'height': 32, 'width': 32}, '0.42 s at 25 frames.*10.5'),
    (DIGITS, {'seconds': 0.00001}, 'whole number'),
    ({**DIGITS, 'digits': {'motions': ['left']}}, {'seconds': 2.0}, 'silent; add one of bounce'),
  ],
)
def test_what_cannot_be_is_explained(data, shape, words):
  with pytest.raises(ConfigError, match=words):
    sources_of(data, {'bucket': shape}, 'train')['bucket']


@pytest.fixture
def songs(tmp_path):
  """A folder of sounds of 3.1, 2.0 and 1.0 seconds, and files that cannot be used."""
  folder = tmp_path / 'songs'
  (folder / 'more').mkdir(parents=True)
  write_wav(folder / 'rain_01.wav', noise(3.1, seed=1), 48_000)
  encode_sound(folder / 'bell.flac', noise(2.0, 44_100, 2, seed=2), 44_100, codec='flac')
  (folder / 'bell.txt').write_text('a bell\nrings')
  encode_video(folder / 'more' / 'drum.mp4', np.zeros((25, 32, 32, 3), np.uint8), noise(1.0))
  write_wav(folder / 'short.wav', noise(0.3), 48_000)
  (folder / 'broken.mp3').write_bytes(b'no sound' * 300)
  encode_video(folder / 'silent.mp4', np.zeros((50, 32, 32, 3), np.uint8))
  return folder


def test_a_folder_gives_windows_of_each_sound_and_names_what_it_skips(songs, tmp_path, caplog):
  data, report = {'kind': 'sounds', 'path': str(songs)}, tmp_path / 'rejected.jsonl'
  with caplog.at_level(logging.WARNING):
    source = sources_of(data, {'second': {'seconds': 1.0}}, 'train', report)['second']
  assert isinstance(source, Source) and len(source) == 3 + 2 + 1
  assert {sample['caption'] for sample in source} == {'rain', 'a bell rings', 'drum'}
  for sample in source:
    assert sample['audio'].shape == (48_000, 1) and sample['audio'].dtype == np.float32
    assert sample['audio'].std() > 0.01
  assert '3 clips, 3 rejected' in caplog.text
  lines = (tmp_path / 'rejected.jsonl').read_text().splitlines()
  reasons = {line['entry']: line['reason'] for line in map(json.loads, lines)}
  assert 'too short: it lasts 0.30 s, 1.00 s are needed' in reasons['short.wav']
  assert 'not a sound' in reasons['broken.mp3'] and 'has no sound' in reasons['silent.mp4']


@pytest.mark.parametrize(
  ('share', 'expected'),
  [
    ('samples', {'short': {'drum'}, 'middle': {'a bell rings'}, 'long': {'rain'}}),
    (
      'given',
      {
        'short': {'drum', 'a bell rings', 'rain'},
        'middle': {'a bell rings', 'rain'},
        'long': {'rain'},
      },
    ),
  ],
)
def test_a_sound_goes_to_the_longest_bucket_it_fills_unless_weights_say_how_often_each_comes(
  songs, share, expected
):
  data = {'kind': 'sounds', 'path': str(songs), 'share': share}
  lengths = {'short': 0.8, 'middle': 1.5, 'long': 2.4}
  buckets = {name: {'seconds': seconds} for name, seconds in lengths.items()}
  found = sources_of(data, buckets, 'train')
  assert {name: {each['caption'] for each in source} for name, source in found.items()} == expected
  # A sound gives as many windows as it fills: rain lasts 3.1 s, the bell 2.0 s and the drum 1.0 s.
  counts = {'samples': (1, 1, 1), 'given': (3 + 2 + 1, 2 + 1, 1)}
  assert tuple(map(len, found.values())) == counts[share]


def test_a_window_of_a_sound_is_a_function_of_its_index_and_a_part_of_its_file(songs):
  data = {'kind': 'sounds', 'path': str(songs), 'rate': 24_000, 'channels': 2}
  source = sources_of(data, {'b': {'seconds': 0.7}}, 'train')['b']
  copy = pickle.loads(pickle.dumps(source))
  wholes = {
    'rain': read_audio(songs / 'rain_01.wav', rate=24_000, channels=2),
    'a bell rings': read_audio(songs / 'bell.flac', rate=24_000, channels=2),
  }
  seen = set()
  for index in (4, 0, 1, 4):
    sample = source[index]
    assert sample['audio'].shape == (16_800, 2)
    np.testing.assert_array_equal(sample['audio'], copy[index]['audio'])
    if sample['caption'] in wholes:
      whole = wholes[sample['caption']]
      place = -delay(whole, sample['audio'])
      # Resampled from another sample on, it may be half a sample apart: cos(pi f / rate), averaged
      # over the power of this noise, is 0.96.
      expected = whole[place : place + 16_800]
      assert np.corrcoef(sample['audio'].ravel(), expected.ravel())[0, 1] > 0.95
      seen.add((sample['caption'], place))
  assert len(seen) > 1


def test_a_manifest_of_sounds_may_say_where_to_begin(songs):
  (songs / 'list.csv').write_text('sound,caption,start\nrain_01.wav,it rains,1.5\n')
  data = {'kind': 'sounds', 'path': str(songs / 'list.csv')}
  (sample,) = sources_of(data, {'b': {'seconds': 0.5}}, 'train')['b']
  assert sample['caption'] == 'it rains'
  expected = read_audio(songs / 'rain_01.wav', start=1.5, seconds=0.5)
  np.testing.assert_array_equal(sample['audio'], expected)


def test_other_files_validate(songs, tmp_path):
  (tmp_path / 'other').mkdir()
  write_wav(tmp_path / 'other' / 'wind.wav', noise(1.0), 48_000)
  data = {'kind': 'sounds', 'path': str(songs), 'validation_path': str(tmp_path / 'other')}
  (sample,) = sources_of(data, {'b': {'seconds': 1.0}}, 'validation')['b']
  assert sample['caption'] == 'wind'


def test_nothing_usable_is_explained(tmp_path):
  (tmp_path / 'a.txt').write_text('a caption')
  data = {'kind': 'sounds', 'path': str(tmp_path)}
  with pytest.raises(DataError, match=r'no usable clip.*sounds of at least 1\.00 s.*clip\.wav'):
    sources_of(data, {'b': {'seconds': 1.0}}, 'train')['b']


def test_videos_come_with_what_is_heard_meanwhile(tmp_path):
  # Frame i is of brightness 2 i, and at frame i the sound is at level i / 200.
  frames = np.broadcast_to(
    (2 * np.arange(100, dtype=np.uint8))[:, None, None, None], (100, 32, 32, 3)
  )
  level = np.repeat(np.arange(100) / 200, 1920)[:, None].astype(np.float32)
  tone = level * np.sin(2 * np.pi * 1000 * np.arange(192_000) / 48_000)[:, None].astype('f4')
  encode_video(tmp_path / 'louder.mp4', frames, tone, begin=0.4, crf='5')
  encode_video(tmp_path / 'silent.mp4', frames)
  data = {'kind': 'clips', 'path': str(tmp_path), 'fps': 25}
  shape = {'seconds': 0.8, 'height': 32, 'width': 32}
  source = sources_of(data, {'b': shape}, 'train')['b']
  assert len(source) >= 4
  for sample in source:
    assert sample['video'].shape == (20, 32, 32, 3) and sample['audio'].shape == (38_400, 1)
    assert sample['caption'] == 'louder'
    shown = sample['video'].mean((1, 2, 3)) / 2
    heard = 200 * np.sqrt(2 * (sample['audio'].reshape(20, 1920) ** 2).mean(1))
    # A window may begin within a frame, so what is heard is up to one frame ahead; codecs err too.
    assert np.abs(heard - shown - 0.5).max() < 1.5
