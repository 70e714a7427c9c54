import dataclasses
import itertools

import numpy as np
import pytest
from scipy import ndimage

from mgjax.lab.worlds.digits import render
from mgjax.lab.worlds.digits.clips import EXTRAS, Digits, all_captions, is_held_out
from mgjax.lab.worlds.digits.handwriting import handwriting
from mgjax.lab.worlds.digits.scene import COLOURS, MOTIONS


def _centroids(video):
  mass = video.astype(np.float64).sum(-1)
  height, width = mass.shape[1:]
  rows = (mass * np.arange(height)[:, None]).sum((1, 2)) / mass.sum((1, 2))
  columns = (mass * np.arange(width)).sum((1, 2)) / mass.sum((1, 2))
  return np.stack([rows, columns], 1)


@pytest.mark.parametrize('split', ['train', 'test'])
def test_a_split_shows_its_own_handwriting(split):
  # At 8 pixels a digit standing still in the middle of a frame of 8 is the source image itself.
  world = {'frames': 1, 'size': (8, 8), 'digit_size': 32, 'jitter': 0, 'colours': ('white',)}
  images, _ = handwriting(split)
  known = {np.rint(image * 16).astype(np.uint8).tobytes() for image in images}
  for sample in Digits(split=split, length=50, **world):
    shown = np.rint(sample['video'][0, ..., 0] / 255 * 16).astype(np.uint8)
    assert shown.tobytes() in known


def test_enough_combinations_are_held_out_and_every_pair_is_trained_on():
  captions = all_captions()
  assert len({caption for *_, caption in captions}) == 160
  seen = [row for row in captions if not is_held_out(*row[:3])]
  assert 0.15 <= 1 - len(seen) / len(captions) <= 0.2
  for first, second in itertools.combinations(range(3), 2):
    pairs = {(row[first], row[second]) for row in captions}
    assert {(row[first], row[second]) for row in seen} == pairs


def test_seen_and_held_out_captions_never_meet():
  draws = {
    captions: {Digits(captions=captions).listen(index)['caption'] for index in range(count)}
    for captions, count in (('seen', 2500), ('held_out', 500), ('all', 2500))
  }
  assert not draws['seen'] & draws['held_out']
  assert draws['seen'] | draws['held_out'] == draws['all']
  assert len(draws['all']) == 160


def test_captions_say_what_is_shown():
  words = {tuple(row): caption for *row, caption in all_captions(tuple(COLOURS), tuple(MOTIONS))}
  assert words[3, 'green', 'left'] == 'the green digit 3 moves left'
  assert words[0, 'red', 'still'] == 'the red digit 0 stands still'
  assert words[9, 'white', 'bounce'] == 'the white digit 9 bounces'
  assert words[4, 'blue', 'fall'] == 'the blue digit 4 falls and lands'
  source = Digits(colours=tuple(COLOURS), motions=tuple(MOTIONS), captions='all', length=20)
  for sample in source:
    assert sample['caption'] == words[sample['digit'], sample['colour'], sample['motion']]


def test_one_frame_is_an_image_of_every_digit_and_colour():
  samples = list(Digits(frames=1, length=600))
  assert {sample['video'].shape for sample in samples} == {(1, 32, 32, 3)}
  assert {sample['motion'] for sample in samples} == {''}
  expected = {f'a photo of the {c} digit {d}' for d in range(10) for c in list(COLOURS)[:4]}
  assert {sample['caption'] for sample in samples} == expected


@pytest.mark.parametrize(
  'frames, size', [(16, (32, 32)), (5, (64, 64)), (2, (48, 80)), (1, (8, 9))]
)
@pytest.mark.parametrize('background', ['black', 'coloured', 'gradient'])
def test_every_shape_and_background(frames, size, background):
  video = Digits(frames=frames, size=size, background=background)[0]['video']
  assert video.shape == (frames, *size, 3) and video.dtype == np.uint8
  assert video.max() > 150
  assert (video.min() > 0) <= (background != 'black')


def test_another_size_and_frame_rate_show_the_same_clip():
  for index in range(8):
    small, large = Digits()[index], Digits(size=(64, 64), frames=31)[index]
    assert small['caption'] == large['caption']
    mean = large['video'][::2].reshape(16, 32, 2, 32, 2, 3).mean((2, 4))
    assert np.abs(mean - small['video']).mean() < 2  # of 255


@pytest.mark.parametrize('motion', tuple(MOTIONS))
def test_the_digit_moves_as_the_caption_says(motion):
  ways = {'left': (0, -1), 'right': (0, 1), 'up': (-1, 0), 'down': (1, 0)}
  for sample in Digits(motions=(motion,), captions='all', length=20):
    steps = np.diff(_centroids(sample['video']), axis=0)
    if motion in ways:
      expected = np.broadcast_to(np.array(ways[motion]) * (32 - 14) / 15, steps.shape)
      # The tents that stretch 8 samples to 14 pixels, seen at whole pixels, are off by up to 1/12.
      np.testing.assert_allclose(steps, expected, atol=2 / 12)
    elif motion == 'still':
      assert (sample['video'] == sample['video'][:1]).all()
    elif motion == 'fall':  # ever faster, straight down, until it lies on the floor
      at_rest = (sample['video'] == sample['video'][-1]).all((1, 2, 3))
      landed = int(at_rest.argmax())
      assert 0.3 * 15 <= landed < 0.8 * 15 + 1 and at_rest[landed:].all()
      assert (np.diff(steps[: landed - 1, 0]) > -2 / 12).all()
      np.testing.assert_allclose(steps[:, 1], 0, atol=2 / 12)
    else:  # it turns at both the floor and the ceiling
      assert {-1, 1} <= set(np.sign(steps[np.abs(steps[:, 0]) > 1, 0]))


def test_the_digit_has_the_colour_of_the_caption():
  for sample in Digits(colours=tuple(COLOURS), length=30):
    pixels = sample['video'].reshape(-1, 3)
    brightest = pixels[pixels.sum(-1).argmax()] / 255
    wanted = np.array(COLOURS[sample['colour']])
    np.testing.assert_allclose(brightest / brightest.max(), wanted / wanted.max(), atol=0.02)


def test_a_fingerprint_names_what_is_not_as_by_default():
  assert Digits().fingerprint == Digits(jitter=3, size=(32, 32)).fingerprint == 'Digits()'
  changed = Digits(textures=('striped',), laps=2).fingerprint
  assert changed == "Digits(textures=('striped',), laps=2.0)"
  for field in dataclasses.fields(Digits):
    other = {
      'split': 'judge',
      'captions': 'all',
      'size': (64, 64),
      'colours': ('red',),
      'motions': ('left',),
      'textures': ('sharp',),
      'background': 'mosaic',
      'laps': 2.0,
      'jitter': 1.0,
      'digit_size': 10.0,
      'sound': True,
      'extras': ('mask',),
      'turns': 5.0,
      'weights': 0.5,
      'numbered': False,
      'reference': 'own',
      'reference_turns': 5.0,
      'reference_weights': 0.5,
      'empty': 0.5,
      'edits': ('recolour',),
    }.get(field.name, 4)
    assert Digits(**{field.name: other}).fingerprint == f'Digits({field.name}={other!r})'


def test_extras_are_there_on_demand():
  assert not {*EXTRAS} & Digits()[0].keys()
  sample = Digits(extras=EXTRAS, frames=3, size=(48, 64))[0]
  shapes = {name: sample[name].shape for name in EXTRAS}
  assert shapes == {
    'mask': (3, 48, 64),
    'background': (48, 64, 3),
    'geometry': (3, 4),
    'view': (3, 48, 64, 3),
    'reference': (1, 48, 64, 3),
  }


def test_a_reference_shows_the_same_handwriting_in_another_pose_or_a_frame_of_the_clip():
  world = {'extras': ('reference',), 'turns': 10.0, 'weights': 0.5, 'background': 'gradient'}
  other, own = Digits(**world), Digits(**world, reference='own')
  for index in range(8):
    scene, sample = own.scene(index), own[index]
    masked = own.show(dataclasses.replace(scene, background='black'))['video']
    assert any(np.array_equal(sample['reference'][0], frame) for frame in masked)
    drawn = other.reference_scene(scene)
    assert (drawn.identities, drawn.background) == (scene.identities, 'black')
    assert np.array_equal(other[index]['reference'], other.show(scene)['reference'])
    assert np.array_equal(other[index]['video'], sample['video'])  # nothing else is another
  many = Digits(**world, references=3)[0]['reference']
  assert many.shape == (3, 32, 32, 3)
  assert np.array_equal(many[:1], other[0]['reference'])
  assert len(np.unique(many, axis=0)) == 3
  poses = [(other.scene(i), other.reference_scene(other.scene(i))) for i in range(400)]
  for name, mine, its in (('turn', 10, 30), ('weight', 0.5, 1)):
    values = np.array([[getattr(each, name) for each in pair] for pair in poses])
    assert (0.95 * np.array([mine, its]) < np.abs(values).max(0)).all()
    assert (np.abs(values).max(0) <= [mine, its]).all()
    assert abs(np.corrcoef(values.T)[0, 1]) < 0.15  # 3 standard errors of none


def test_handwriting_is_turned_clockwise_and_its_strokes_become_bold():
  scene = Digits(frames=1, split='test').scene(3)
  plain, bold, thin, turned = (
    render.mask(dataclasses.replace(scene, **pose), 1, (64, 64))[0]
    for pose in ({}, {'weight': 1.0}, {'weight': -1.0}, {'turn': 20.0})
  )
  assert thin.sum() < 0.9 * plain.sum() < plain.sum() < 0.9 * bold.sum()
  assert 0.85 < turned.sum() / plain.sum() < 1.1
  # The axis of least spread of a turned picture is turned with it.
  back = [ndimage.rotate(turned, angle, reshape=False, order=1) for angle in (20, -20)]
  assert np.linalg.norm(back[0] - plain) < 0.5 * np.linalg.norm(back[1] - plain)


def test_captions_that_leave_the_number_open():
  world = Digits(numbered=False)
  assert {sample['caption'] for sample in world.every_caption()} == {
    f'the {colour} digit {MOTIONS[motion]}' for colour in world.colours for motion in world.motions
  }
  assert world[0]['caption'] in {sample['caption'] for sample in world.every_caption()}
