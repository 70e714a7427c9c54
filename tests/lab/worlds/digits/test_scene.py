"""Scenes: what a sample shows, as data that can be changed and drawn again."""

import dataclasses

import numpy as np
import pytest
from PIL import Image
from scipy.ndimage import map_coordinates

from mgjax.lab.worlds.digits import render
from mgjax.lab.worlds.digits.clips import EXTRAS, Digits, is_held_out
from mgjax.lab.worlds.digits.handwriting import identities_of, image_of
from mgjax.lab.worlds.digits.scene import BACKGROUNDS, COLOURS, MOTIONS, TEXTURES, Scene
from mgjax.lab.worlds.digits.signs import Signs

CRISP = tuple(name for name in TEXTURES if name != 'soft')
ALL = {'motions': tuple(MOTIONS), 'captions': 'all', 'frames': 4}


def test_a_sample_is_its_scene_shown():
  for source in (Digits(**ALL), Signs(**ALL)):
    for index in range(5):
      sample, shown = source[index], source.show(source.scene(index))
      assert sample.keys() == shown.keys()
      assert all(np.array_equal(sample[name], shown[name]) for name in sample)


def test_a_view_shows_the_same_handwriting_in_another_scene_and_changes_no_sample():
  for make in (Digits, Signs):
    source = make(extras=('view',), background='mosaic', frames=4, size=(32, 48))
    plain = dataclasses.replace(source, extras=())
    for index in range(20):
      scene, sample = source.scene(index), source[index]
      view = source.view(scene)
      assert view.identities == scene.identities and view.offset != scene.offset
      assert view.tiles != scene.tiles and view == plain.view(scene)
      shown = plain.show(view)
      np.testing.assert_array_equal(sample.pop('view'), shown['video'])
      assert sample.pop('view_caption') == shown['caption']
      assert all(np.array_equal(each, sample[name]) for name, each in plain[index].items())


def test_views_have_other_colours_and_motions_but_none_that_is_held_out():
  source = Digits()
  pairs = [(scene, source.view(scene)) for scene in map(source.scene, range(200))]
  for field in ('colour', 'motion'):  # of four
    same = np.mean([getattr(one, field) == getattr(other, field) for one, other in pairs])
    assert 0.1 < same < 0.4
  assert not any(is_held_out(int(view.number), view.colour, view.motion) for _, view in pairs)


@pytest.mark.parametrize('texture', TEXTURES)
def test_a_changed_field_changes_what_it_says_and_nothing_else(texture):
  source = Digits(background='mosaic', textures=(texture,), size=(64, 64), frames=3)
  scene = source.scene(0)
  before, ink = source.show(scene), render.mask(scene, 3, (64, 64))
  colour = next(name for name in COLOURS if name != scene.colour)
  red = source.show(dataclasses.replace(scene, colour=colour))
  assert red['caption'] == before['caption'].replace(scene.colour, colour)
  changed = (red['video'] != before['video']).any(-1)
  assert changed[ink > 0.1].all() and not changed[ink == 0].any()
  night = source.show(dataclasses.replace(scene, background='black'))
  assert night['caption'] == before['caption'] and not night['video'][ink == 0].any()
  np.testing.assert_array_equal(night['video'][ink > 1 - 1e-6], before['video'][ink > 1 - 1e-6])
  still = source.show(dataclasses.replace(scene, motion='still'))
  assert still['motion'] == 'still' and (still['video'] == still['video'][:1]).all()
  other = identities_of('train', (before['digit'] + 1) % 10)[0]
  replaced = source.show(dataclasses.replace(scene, identities=(other,)))
  assert replaced['digit'] == (before['digit'] + 1) % 10 and replaced['identity'] == other
  assert f'digit {replaced["digit"]}' in replaced['caption']


@pytest.mark.parametrize('background', BACKGROUNDS)
def test_masks_and_backgrounds_compose_the_clip(background):
  source = Digits(background=background, extras=EXTRAS, size=(48, 80), frames=3)
  for index in range(4):
    sample = source[index]
    ink, colour = sample['mask'][..., None], np.array(COLOURS[sample['colour']])
    composed = ink * 255 * colour + (1 - ink) * sample['background']
    # Half a step for each of the two that were rounded.
    np.testing.assert_allclose(composed, sample['video'], atol=1.001)


@pytest.mark.parametrize('texture', ['soft', 'checked'])
def test_geometry_is_where_the_digit_is_at_any_size(texture):
  for source in (Digits(**ALL, textures=(texture,)), Signs(**ALL, textures=(texture,))):
    for index in range(6):
      scene, (height, width) = source.scene(index), source.size
      small = render.geometry(scene, 4, (height, width))
      large = render.geometry(scene, 4, (2 * height, 2 * width))
      np.testing.assert_allclose(large, 2 * small, atol=1e-9)
      assert (large[:, :2] >= 0).all()
      assert (large[:, :2] + large[:, 2:] <= [2 * height + 1e-9, 2 * width + 1e-9]).all()
      drawn = render.mask(scene, 4, (2 * height, 2 * width))
      for ink, (y, x, tall, wide) in zip(drawn, large, strict=True):
        rows, columns = np.nonzero(ink)
        # Interpolated handwriting reaches half a sample, tall / 16, beyond its outermost samples.
        assert rows.min() >= y - tall / 16 - 1 and rows.max() < y + tall * 17 / 16
        assert columns.min() >= x - tall / 16 - 1 and columns.max() < x + wide + tall / 16


@pytest.mark.parametrize('texture', CRISP)
@pytest.mark.parametrize('size', [(64, 64), (128, 128), (48, 80)])
def test_sharp_digits_are_averages_over_pixels_of_what_is_ink_and_what_is_stripe(texture, size):
  change = {'texture': texture, 'parity': (1, 0), 'colour': 'white'}
  scene = dataclasses.replace(Digits(captions='all').scene(3), **change)
  scale, points = min(size) / 32, 8
  image = np.pad(image_of(scene.identities[0])[0], 1)  # nothing is beyond the handwriting
  wanted = []
  for y, x, tall, _ in render.geometry(scene, 3, size):
    # `points` a side in each pixel, as pixels of a frame of 32 from the corner of the digit.
    ys = ((np.arange(size[0] * points) + 0.5) / points - y) / scale
    xs = ((np.arange(size[1] * points) + 0.5) / points - x) / scale
    place = [8 * each / (tall / scale) + 0.5 for each in (ys, xs)]
    value = map_coordinates(image, np.meshgrid(*place, indexing='ij'), order=1)
    inside = np.outer(*((each >= 0) & (each < tall / scale) for each in (ys, xs)))
    down, across = (np.floor(2 * ys) + 1) % 2, np.floor(2 * xs) % 2  # 1: dark
    dark = {'sharp': 0.5, 'striped': down[:, None], 'barred': across[None]}.get(texture)
    dark = (down[:, None] + across[None]) % 2 if dark is None else dark
    bright = (value > 0.45) * inside * (1 - 0.7 * dark)
    wanted.append(bright.reshape(size[0], points, size[1], points).mean((1, 3)))
  drawn = render.render(scene, 3, size)[..., 0] / 255
  # At 64 pixels both sample the same places, at other sizes outlines in others.
  errors = np.abs(drawn - wanted)
  assert errors.max() < (0.5 / 255 + 1e-4 if size == (64, 64) else 0.2) and errors.mean() < 2e-3


def _decibels(textures, small, large):
  """PSNR of small clips, enlarged bicubically, against large ones, in dB."""
  errors = []
  world = {'textures': textures, 'frames': 1, 'split': 'test', 'captions': 'all'}
  sources = [Digits(size=(side, side), **world) for side in (small, large)]
  for index in range(64):
    image, wanted = (source[index]['video'][0] for source in sources)
    bicubic = Image.fromarray(image).resize((large, large), Image.Resampling.BICUBIC)
    errors.append(np.mean((np.asarray(bicubic) / 255 - wanted / 255) ** 2))
  return -10 * np.log10(np.mean(errors))


def test_textures_are_details_that_bicubic_enlarging_does_not_give_back():
  assert _decibels(('soft',), 32, 64) > 43
  assert _decibels(('sharp',), 32, 64) < 36
  for texture in ('striped', 'barred', 'checked'):
    assert _decibels((texture,), 32, 64) < 26
  assert _decibels(('striped', 'barred', 'checked'), 64, 128) < 33


def test_small_clips_hide_the_texture():
  scene = Digits(captions='all', digit_size=24).scene(0)
  drawn = [
    render.render(dataclasses.replace(scene, texture=texture, parity=parity), 4, (32, 32))
    for texture in CRISP
    for parity in ((0, 0), (0, 1), (1, 0), (1, 1))
  ]
  ink = render.mask(dataclasses.replace(scene, texture='sharp'), 4, (32, 32))
  inside = ink == 1  # at outlines a pixel has a part of a stripe
  assert inside.sum() > 50
  for other in drawn[1:]:
    np.testing.assert_allclose(other[inside].astype(int), drawn[0][inside].astype(int), atol=1)


def test_a_mosaic_stands_still_dark_and_with_contrast():
  source = Digits(background='mosaic', extras=('background',), size=(64, 96), frames=1, length=30)
  for sample in source:
    behind = sample['background'].astype(int)
    assert behind.shape == (64, 96, 3) and behind.max() <= 64
    tiles = behind[4::8, 4::8]  # one pixel of each
    np.testing.assert_array_equal(behind, np.kron(tiles, np.ones((8, 8, 1), int)))
    assert np.ptp(tiles, axis=(0, 1)).min() >= 0.04 * 255
  assert (source[0]['background'] != source[1]['background']).any()


def test_captions_name_textures_that_have_a_word():
  names = {'striped', 'barred', 'checked'}
  for sample in Digits(textures=CRISP, captions='all', frames=2, length=40):
    assert ({*sample['caption'].split()} & names) == ({sample['texture']} & names)
  scene = Scene(identities=(0,), colour='red', motion='left', texture='striped')
  assert Digits().show(scene)['caption'] == 'the striped red digit 0 moves left'
  assert Signs().show(scene)['caption'] == 'the striped red sign says "0" and moves left'
