"""Sources of sound: windows of the asked length, a function of the index, in step with video."""

import pickle

import numpy as np
import pytest

from mgjax.core.errors import ConfigError
from mgjax.data.digits import AUDIBLE, Digits
from mgjax.data.mixture import Source
from mgjax.data.sound_sources import make_sound_source

DIGITS = {'kind': 'digits', 'fps': 25, 'digits': {'motions': [*AUDIBLE, 'still']}}
WORLD = {'motions': (*AUDIBLE, 'still'), 'fps': 25, 'sound': True, 'frames': 50}


def digits(split='train', **shape):
  return make_sound_source(DIGITS, 'bucket', shape, split)


def test_a_whole_clip_is_the_clip_with_its_sound():
  source = digits(seconds=2.0, height=32, width=48)
  assert isinstance(source, Source)
  for index in (0, 5):
    sample, clip = source[index], Digits(**WORLD, size=(32, 48))[index]
    assert sample.keys() == clip.keys()
    for name in ('video', 'sound'):
      np.testing.assert_array_equal(sample[name], clip[name])
    np.testing.assert_allclose(sample['events'], clip['events'], rtol=1e-12)
    assert sample['video'].shape == (50, 32, 48, 3) and sample['sound'].shape == (96_000, 1)


def test_without_a_size_there_is_no_video_but_the_same_sound():
  with_pictures, without = digits(seconds=2.0, height=32, width=32), digits(seconds=2.0)
  for index in range(3):
    np.testing.assert_array_equal(with_pictures[index]['sound'], without[index]['sound'])
    assert with_pictures[index].keys() - without[index].keys() == {'video'}


def test_a_window_is_a_function_of_its_index():
  source = digits(seconds=0.4)
  copy = pickle.loads(pickle.dumps(source))
  for index in (9, 2, 9):
    np.testing.assert_array_equal(source[index]['sound'], copy[index]['sound'])
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
    assert sample['sound'].shape == (19_200, 1)
    for event in sample['events']:
      first = round(event * 48_000)
      # The click is louder than what rings on, by more than a sample can differ from the next.
      before = np.abs(np.diff(sample['sound'][max(0, first - 40) : first, 0])).max(initial=0)
      assert abs(sample['sound'][first, 0] - sample['sound'][max(first - 1, 0), 0]) > before or (
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
      and (clip['sound'][1920 * start :][:19_200] == sample['sound']).all()
    ]
    assert starts


def test_longer_windows_make_longer_clips():
  assert digits(seconds=4.0)[0]['sound'].shape == (192_000, 1)


def test_validation_shows_other_handwriting_and_captions():
  train = {digits(seconds=2.0)[i]['caption'] for i in range(300)}
  source = digits('validation', seconds=2.0)
  assert len(source) == 4096
  assert not train & {source[i]['caption'] for i in range(100)}


@pytest.mark.parametrize(
  'data, shape, words',
  [
    ({**DIGITS, 'kind': 'songs'}, {'seconds': 2.0}, "unknown kind of sound data 'songs'.*digits"),
    (DIGITS, {'seconds': 0.0}, 'expected more than 0'),
    (DIGITS, {'seconds': 0.42, 'height': 32, 'width': 32}, '0.42 s at 25 frames.*10.5'),
    (DIGITS, {'seconds': 0.00001}, 'whole number'),
    ({**DIGITS, 'digits': {'motions': ['left']}}, {'seconds': 2.0}, 'silent; add one of bounce'),
  ],
)
def test_what_cannot_be_is_explained(data, shape, words):
  with pytest.raises(ConfigError, match=words):
    make_sound_source(data, 'bucket', shape, 'train')
