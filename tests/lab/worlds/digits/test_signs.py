import itertools

import numpy as np
import pytest

from mgjax.data.settings import data_settings, video_shapes
from mgjax.data.sources import make_sources
from mgjax.lab.worlds.digits.handwriting import handwriting
from mgjax.lab.worlds.digits.render import PITCH
from mgjax.lab.worlds.digits.scene import COLOURS, MOTIONS
from mgjax.lab.worlds.digits.signs import Signs, is_held_out_number, numbers, sign_caption


def test_a_quarter_of_the_numbers_is_held_out_and_every_digit_is_seen_at_every_place():
  assert [len(numbers(length)) for length in (1, 2, 3)] == [10, 90, 900]
  assert len(numbers(1, 'seen')) == 10
  for length in (2, 3):
    seen, kept = numbers(length, 'seen'), numbers(length, 'held_out')
    assert not {*seen} & {*kept} and len(seen) + len(kept) == len(numbers(length))
    assert 0.24 <= len(kept) / len(numbers(length)) <= 0.26
    for place in range(length):
      digits = {number[place] for number in numbers(length)}
      assert len(digits) == 10 - (place == 0)  # no number begins with 0
      assert {number[place] for number in seen} == digits == {number[place] for number in kept}
  for places in itertools.combinations(range(3), 2):  # every two digits are seen together
    pairs = [{tuple(n[p] for p in places) for n in numbers(3, kind)} for kind in ('seen', 'all')]
    assert pairs[0] == pairs[1]


def test_numbers_held_out_are_never_drawn_in_training():
  draws = {
    captions: [Signs(frames=1, captions=captions).scene(index).number for index in range(1500)]
    for captions in ('seen', 'held_out')
  }
  assert not any(map(is_held_out_number, draws['seen']))
  assert all(map(is_held_out_number, draws['held_out']))
  # Each length comes 500 of 1500 times: a deviation of 18.
  counts = np.bincount([len(number) for number in draws['seen']], minlength=4)
  np.testing.assert_allclose(counts, [0, 500, 500, 500], atol=5 * 18)


def test_captions_say_what_is_shown():
  assert sign_caption('407', 'green', '') == 'the green sign says "407"'
  assert sign_caption('40', 'red', 'fall') == 'the red sign says "40" and falls and lands'
  assert {sample['motion'] for sample in Signs(frames=1, length=20)} == {''}
  for sample in Signs(frames=2, colours=tuple(COLOURS), motions=tuple(MOTIONS), length=60):
    labels = (sample['number'], sample['colour'], sample['motion'])
    assert sign_caption(*labels) == sample['caption']


@pytest.mark.parametrize('split', ['train', 'test'])
def test_digits_stand_side_by_side_in_the_handwriting_of_the_split(split):
  # At 8 pixels a digit that stands still where a pixel begins is the source image itself.
  size = (8, 2 * PITCH + 8)
  source = Signs(
    split=split,
    frames=1,
    size=size,
    digit_size=32,
    jitter=0,
    lengths=(3,),
    colours=('white',),
    captions='all',
    length=30,
  )
  images, labels = handwriting(split)
  inner = np.rint(images[:, :, 1:-1] * 16).astype(np.uint8)  # what neighbours do not share
  known = {
    digit: {each.tobytes() for each in inner[labels == int(digit)]} for digit in '0123456789'
  }
  for sample in source:
    shown = np.rint(sample['video'][0, ..., 0] / 255 * 16).astype(np.uint8)
    for place, digit in enumerate(sample['number']):
      columns = slice(PITCH * place + 1, PITCH * place + 7)
      assert np.ascontiguousarray(shown[:, columns]).tobytes() in known[digit]


@pytest.mark.parametrize('motion', ['left', 'right', 'up', 'down', 'bounce', 'still'])
def test_a_sign_stays_in_the_frame_while_it_moves(motion):
  for sample in Signs(frames=9, motions=(motion,), background='black', length=5):
    video = sample['video'].astype(np.float64)
    mass = video.sum((1, 2, 3))
    # Sub-pixel places change what a stroke sums up to, by less than a tenth.
    np.testing.assert_allclose(mass, mass[0], rtol=0.1)
    assert (video[0] == video[-1]).all() == (motion == 'still')


def test_a_configuration_makes_signs_in_every_bucket():
  data = {'kind': 'signs', 'fps': 8, 'signs': {'lengths': [2, 3], 'motions': ['left']}}
  lengths = {'image': 1, 'video': 4}
  buckets = {name: {'frames': n, 'height': 32, 'width': 48} for name, n in lengths.items()}
  data, shapes = data_settings(data), video_shapes(buckets, 8)
  train, validation = (make_sources(data, shapes, split) for split in ('train', 'validation'))
  for name, frames in lengths.items():
    assert train[name][0]['video'].shape == (frames, 32, 48, 3)
    assert not any(is_held_out_number(train[name][index]['number']) for index in range(20))
    assert all(is_held_out_number(validation[name][index]['number']) for index in range(20))
  assert train['video'][0]['fps'] == 8 and 'fps' not in train['image'][0]
