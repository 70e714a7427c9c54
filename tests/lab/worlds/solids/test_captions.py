import collections
import dataclasses

import numpy as np
import pytest

from mgjax.lab.worlds.solids import captions
from mgjax.lab.worlds.solids.captions import plain_caption, relation_of, varied_caption
from mgjax.lab.worlds.solids.clips import Solids
from mgjax.lab.worlds.solids.kinds import MATERIALS
from mgjax.lab.worlds.solids.scene import Camera, Scene, Solid

BALL = Solid('ball', 'red', 'metal', 0.6, 'rolls left', (1.0, 0.0), (-0.9, 0.0))
CUBE = Solid('cube', 'blue', 'wood', 0.4, place=(-0.8, 0.0))
CONE = Solid('cone', 'green', 'glass', 0.4, 'falls', place=(0.0, 1.2), height=1.0)
MEETING = Scene((BALL, CUBE), Camera('circles right', 40.0), meets=(0, 1))


def test_a_plain_caption_says_everything_in_one_phrase():
  caption = plain_caption(MEETING)
  assert caption.text == (
    'a large red metal ball rolls left and hits a small blue wooden cube; the camera circles right'
  )
  said = {(each.what, each.solids): each.value for each in caption.says}
  for index, solid in enumerate(MEETING.solids):
    for what in ('colour', 'shape', 'material'):
      assert said[what, (index,)] == getattr(solid, what)
  assert said['motion', (0,)] == 'rolls left' and said['hits', (0, 1)] == 'hits'
  assert said['size', (0,)] == 'large' and said['camera', ()] == 'circles right'
  assert plain_caption(MEETING, moves=False).text == (
    'a large red metal ball and a small blue wooden cube'
  )


def test_two_that_roll_towards_each_other_both_move():
  other = dataclasses.replace(BALL, colour='cyan', motion='rolls right', velocity=(0.9, 0.0))
  text = plain_caption(Scene((BALL, other), meets=(0, 1))).text
  assert (
    text
    == 'a large red metal ball rolls left, a large cyan metal ball rolls right and they collide'
  )


def test_one_meaning_has_many_sentences_from_a_phrase_to_three_sentences():
  scene = Scene((BALL, CUBE, CONE), Camera('pans left', 14.6), meets=(0, 1))
  drawn = [varied_caption(scene, np.random.default_rng(seed)) for seed in range(300)]
  assert len({caption.text for caption in drawn}) > 250
  sentences = collections.Counter(caption.text.count('.') for caption in drawn)
  assert set(sentences) == {0, 2, 3}
  assert varied_caption(scene, np.random.default_rng(3)) == drawn[3]
  says = {each for caption in drawn for each in caption.says}
  assert ('amount', (), 15) in says and ('count', (), 3) in says


WORDS = {
  'colour': lambda value: (value,),
  'shape': lambda value: captions._SHAPES[value],
  'material': lambda value: (MATERIALS[value].word, f'{value}lic'),
  'size': lambda value: captions._SIZES[value],
  'pace': lambda value: (value,),
  'count': lambda value: (captions._NUMBERS[value],),
  'amount': lambda value: (f'by {value} degrees',),
  'relation': lambda value: (value,),
  'hits': lambda value: ('hits', 'into', 'collide', 'meet', 'hit by'),
  'follows': lambda value: ('follows', 'goes along with'),
  'pattern': lambda value: (value, value[:-1], 'half'),
}


@pytest.mark.parametrize('moves', [True, False])
def test_what_a_caption_says_is_true_and_stands_in_it(moves):
  source, told = Solids(patterns=('band', 'dots', 'halves'), solids=(1, 4)), collections.Counter()
  for index in range(150):
    scene = source.scene(index)
    text, says = varied_caption(scene, np.random.default_rng(index), moves)
    assert text[-1] != ' ' and '  ' not in text and ' .' not in text
    for what, solids, value in says:
      told[what] += 1
      if what in WORDS:
        assert any(word in text.lower() for word in WORDS[what](value)), (text, what, value)
      if what in ('colour', 'shape', 'material', 'motion', 'pattern'):
        assert getattr(scene.solids[solids[0]], what) == value
      if what == 'relation':
        assert relation_of(scene, *solids) == value
      if what == 'hits':
        assert solids == scene.meets
      if what == 'camera':
        assert value == scene.camera.move
        assert value == 'stands still' or 'camera' in text.lower()
    of_solids = {each.solids for each in says if each.what == 'colour'}
    assert of_solids == {(index,) for index in range(len(scene.solids))}
  moving = {'motion', 'camera', 'pace', 'amount', 'hits', 'follows', 'relation'}
  expected = {'colour', 'shape', 'material', 'size', 'count', 'pattern'} | (
    moving if moves else set()
  )
  assert set(told) == expected
  assert told['material'] < told['colour']  # some say less


def test_relations_are_seen_from_the_camera():
  def scene(azimuth, place):
    other = dataclasses.replace(CUBE, place=(0.0, 0.0))
    first = dataclasses.replace(CONE, place=place, motion='spins', height=0.0)
    return Scene((first, other), Camera(azimuth=azimuth))

  assert relation_of(scene(0.0, (1.0, 0.1)), 0, 1) == 'right of'
  assert relation_of(scene(0.0, (-1.0, 0.1)), 0, 1) == 'left of'
  assert relation_of(scene(0.0, (0.1, 1.0)), 0, 1) == 'behind'
  assert relation_of(scene(np.pi / 2, (1.0, 0.1)), 0, 1) == 'in front of'
  assert relation_of(scene(0.0, (1.0, 1.0)), 0, 1) == ''


def test_what_is_heard_is_told_in_its_order():
  source, light = Solids(wording='heard'), dataclasses.replace(BALL, material='rubber', size=0.42)
  meeting = Scene((light, dataclasses.replace(CUBE, size=0.6)), meets=(0, 1))
  heard = [
    source.caption(dataclasses.replace(scene, wording=1)).text
    for scene in (meeting, Scene((CONE,)), Scene((CUBE,)))
  ]
  assert heard[0].startswith('rubber rolls, then rubber hits wood')
  assert heard[1].startswith('glass lands') and heard[2] == 'nothing is heard'
  assert source.caption(dataclasses.replace(MEETING, wording=2)).says  # by turns what is seen
