import dataclasses
import functools

import numpy as np
import pytest

from mgjax.core.errors import ConfigError
from mgjax.core.resize import averaging
from mgjax.lab.worlds.solids.clips import EXTRAS, SPLITS, Solids
from mgjax.lab.worlds.solids.kinds import CAMERAS, MOTIONS, SIZES, SPEEDS
from mgjax.lab.worlds.solids.physics import ON_FLOOR
from mgjax.lab.worlds.solids.portraits import object_of
from mgjax.lab.worlds.solids.sampling import is_held_out
from mgjax.lab.worlds.solids.scene import Scene, Solid

SMALL = functools.partial(Solids, size=(32, 32), frames=4)


def test_an_index_is_the_same_scene_at_every_size():
  for index in range(3):
    large = SMALL(size=(128, 128))[index]['video'].astype(np.float32)
    for side in (32, 64):
      small = SMALL(size=(side, side))[index]['video']
      down = averaging(128, side)
      averaged = np.einsum('yi,tijc,xj->tyxc', down, large, down)
      assert np.abs(averaged - small).mean() < 2


def test_an_index_is_the_same_scene_at_every_rate():
  slow, fast = SMALL(frames=5, fps=4), SMALL(frames=9, fps=8)
  for index in range(3):
    assert (slow[index]['video'] == fast[index]['video'][::2]).all()
    assert slow[index]['caption'] == fast[index]['caption']


def test_a_longer_clip_shows_what_follows():
  scene = Scene((Solid('ball', 'red', 'wood', 0.5, 'rolls right', (-1.0, 0.0), (0.8, 0.0)),))
  short, long = SMALL(frames=3).show(scene), SMALL(frames=6).show(scene)
  assert (short['video'] == long['video'][:3]).all()
  assert (long['video'][3] != long['video'][5]).any()


def test_one_frame_is_a_picture_of_some_moment_and_says_nothing_of_motion():
  source = SMALL(frames=1)
  verbs = {each for motion in MOTIONS for each in motion.split()[:1]}
  for index in range(20):
    words = source.listen(index)['caption'].replace(':', ' ').split()
    assert not verbs & set(words) and 'camera' not in words
  moments = [source.scene(index).moment for index in range(20)]
  assert source.labels(source.scene(3)).times[0] == moments[3]
  assert np.std(moments) > 0.3


def test_labels_agree_with_each_other_and_with_the_picture():
  source = SMALL(size=(48, 64), extras=EXTRAS, frames=6)
  checked = 0
  for index in range(12):
    scene = source.scene(index)
    sample, labels = source.show(scene), source.labels(scene)
    count = len(scene.solids)
    assert sample['video'].shape == (6, 48, 64, 3) and sample['video'].dtype == np.uint8
    assert sample['segmentation'].max() <= count == sample['count']
    assert np.allclose(sample['positions'][:, :count], labels.positions, atol=1e-5)
    assert np.allclose(sample['velocities'][:, :count], labels.velocities, atol=1e-5)
    shown = labels.camera.project(labels.positions)
    for frame, place in np.argwhere(np.isfinite(shown[..., 0])):
      u, v, depth = shown[frame, place]
      row, column = int(24 - 24 * v), int(32 + 24 * u)
      seen = sample['segmentation'][frame]
      if not (0 <= row < 48 and 0 <= column < 64):
        continue
      # The centre of a solid lies behind its surface, and whatever hides it is nearer still.
      assert sample['depth'][frame, row, column] < depth
      if seen[row, column] == place + 1:
        checked += 1
        size = scene.solids[place].size
        assert depth - 1.5 * size < sample['depth'][frame, row, column]
  assert checked > 60


def test_the_camera_goes_as_far_as_it_is_said_to():
  solid = Solid('ball', 'red', 'wood', 0.5, 'rolls right', (-0.8, 0.0), (0.9, 0.0))
  source = SMALL(frames=9, fps=4)
  for move, kind in CAMERAS.items():
    amount = sum(kind.amounts) / 2
    scene = Scene((solid,))
    scene = dataclasses.replace(
      scene, camera=dataclasses.replace(scene.camera, move=move, amount=amount)
    )
    labels = source.labels(scene)
    eye, axes, focal = labels.camera
    assert np.allclose(axes @ axes.transpose(0, 2, 1), np.eye(3))
    forward, moved = axes[:, 2], np.linalg.norm(eye[-1] - eye[0])
    turned = np.degrees(np.arccos(np.clip(forward[0] @ forward[-1], -1, 1)))
    first, last = np.degrees(np.arctan2(forward[[0, -1], 0], forward[[0, -1], 1]))
    word = move.split()[0]
    if word in ('pans', 'circles'):
      assert abs(last - first) == pytest.approx(amount)
      assert (last > first) == (move in ('pans right', 'circles left'))
      assert (moved > 0.5) == (word == 'circles')
      assert word == 'pans' or (eye[-1, 0] > eye[0, 0]) == (move == 'circles right')
    elif word == 'tilts':
      assert turned == pytest.approx(amount) and moved == 0
      assert (forward[-1, 2] > forward[0, 2]) == (move == 'tilts up')
    elif word == 'zooms':
      assert focal[-1] / focal[0] == pytest.approx(amount if move == 'zooms in' else 1 / amount)
      assert turned == moved == 0
    elif word == 'follows':
      gone = labels.positions[-1, 0] - labels.positions[0, 0]
      assert np.allclose(eye[-1] - eye[0], gone) and labels.amount == pytest.approx(moved)
    else:
      assert turned == moved == 0 == focal[-1] - focal[0]


@functools.cache
def _drawn(split):
  source = Solids(split=split)
  return [source.scene(index) for index in range(150)]


def test_training_and_new_combinations_never_meet_and_pairs_are_shared():
  def rows(split):
    return {
      (solid.shape, solid.colour, solid.material, solid.motion, scene.camera.move)
      for scene in _drawn(split)
      for solid in scene.solids
    }

  seen, new = rows('train'), rows('new_combination')
  assert not any(is_held_out(*row) for row in seen | rows('in_distribution'))
  assert all(is_held_out(*row) for row in new)
  for first in range(4):
    for second in range(first):
      pairs = {(row[first], row[second]) for row in new}
      shared = pairs & {(row[first], row[second]) for row in seen}
      assert len(shared) > 0.5 * len(pairs)


def test_every_pair_of_words_is_seen_in_training():
  from itertools import combinations, product

  from mgjax.lab.worlds.solids.kinds import COLOURS, MATERIALS, SHAPES

  factors = (SHAPES, COLOURS, MATERIALS, MOTIONS, CAMERAS)
  seen = [row for row in product(*factors) if not is_held_out(*row)]
  share = len(seen) / np.prod([len(each) for each in factors])
  assert 0.6 < share < 0.75
  for first, second in combinations(range(5), 2):
    assert {(row[first], row[second]) for row in seen} == set(
      product(factors[first], factors[second])
    )


def test_new_values_lie_outside_of_what_training_shows():
  sizes = [solid.size for scene in _drawn('new_value') for solid in scene.solids]
  usual = [solid.size for scene in _drawn('train') for solid in scene.solids]
  inside = [span for spans in SIZES.values() for span in spans[:1]]
  assert all(any(low <= size <= high for low, high in inside) for size in usual)
  assert not any(any(low <= size <= high for low, high in inside) for size in sizes)
  for scene in _drawn('new_value'):
    for solid in scene.solids:
      verb, direction = MOTIONS[solid.motion]
      if direction:
        assert np.hypot(*solid.velocity) > SPEEDS[verb][0].most


def test_who_is_to_meet_meets_once_and_nobody_else_does():
  source, met = Solids(frames=48, fps=8), 0
  for scene in _drawn('train'):
    contacts = source.labels(scene).contacts
    between = [(each.first, each.second) for each in contacts if each.second != ON_FLOOR]
    assert between == ([scene.meets] if scene.meets else [])
    met += bool(between)
  assert 30 < met < 90


def test_colours_are_drawn_without_replacement_and_all_words_come():
  for scene in _drawn('train'):
    colours = [solid.colour for solid in scene.solids]
    assert len(set(colours)) == len(colours)
  solids = [solid for scene in _drawn('train') for solid in scene.solids]
  assert {solid.motion for solid in solids} == set(MOTIONS)
  assert {scene.camera.move for scene in _drawn('train')} == set(CAMERAS)
  assert {len(scene.solids) for scene in _drawn('train')} == {1, 2, 3}


def test_every_solid_is_seen_in_most_frames():
  source = SMALL(frames=8, fps=4, extras=('segmentation',))
  for index in range(15):
    sample = source[index]
    for solid in range(sample['count']):
      pixels = (sample['segmentation'] == solid + 1).sum((1, 2))
      assert (pixels > 5).mean() > 0.5


def test_patterns_and_second_colours_make_other_objects():
  plain = Scene((Solid('cube', 'red', 'wood', 0.6, yaw=0.4),))
  source = SMALL(frames=1, size=(64, 64))
  pictures = [source.show(plain)['video']]
  for change in (
    {'pattern': 'dots'},
    {'pattern': 'checks'},
    {'pattern': 'halves'},
    {'second': 'cyan'},
  ):
    solid = dataclasses.replace(plain.solids[0], **change)
    pictures.append(source.show(dataclasses.replace(plain, solids=(solid,)))['video'])
  for index, picture in enumerate(pictures):
    for other in pictures[:index]:
      assert (np.abs(picture.astype(int) - other).max(-1) > 20).sum() > 60


@pytest.mark.parametrize(
  ('fields', 'said'),
  [
    ({'split': 'test'}, 'split'),
    ({'shapes': ('pyramid',)}, 'pyramid'),
    ({'cameras': ()}, 'nothing'),
    ({'solids': (2, 1)}, r'solids = \(2, 1\)'),
    ({'solids': (1, 3), 'colours': ('red', 'blue')}, 'of 2 colours'),
    ({'cameras': ('follows',), 'motions': ('spins',)}, 'nothing moves'),
    ({'sound': True, 'fps': 7, 'frames': 3}, 'divide 48000'),
    ({'rays': 3}, 'rays = 3'),
    ({'wording': 'long'}, 'wording'),
  ],
)
def test_what_cannot_be_is_refused(fields, said):
  with pytest.raises(ConfigError, match=said):
    Solids(**fields)


def test_the_fingerprint_names_what_differs():
  assert Solids().fingerprint == 'Solids()'
  assert Solids(meetings=1).fingerprint == 'Solids(meetings=1.0)'
  assert set(SPLITS) >= {'train', 'in_distribution', 'new_combination', 'new_value'}


def test_a_window_is_cut_out_of_a_clip_the_same_in_all_frames():
  source, places = SMALL(crop=2), set()
  for index in range(4):
    window = source[index]['video']
    whole = SMALL(size=(64, 64))[index]['video']
    found = [
      (top, left)
      for top in range(33)
      for left in range(33)
      if (whole[:, top : top + 32, left : left + 32] == window).all()
    ]
    assert found
    places.add(found[0])
  assert len(places) > 1
  with pytest.raises(ConfigError, match='of whole clips; expected crop = 1'):
    SMALL(crop=2, extras=('depth',))


def test_references_and_views_show_the_object_in_other_surroundings():
  source = SMALL(
    extras=('reference', 'view'), references=2, named=False, patterns=('dots', 'checks')
  )
  other = source[4]['identity']
  for index in range(3):
    sample, scene = source[index], source.scene(index)
    assert sample['reference'].shape == (2, 32, 32, 3) and sample['view'].shape == (1, 32, 32, 3)
    assert 'this object' in sample['caption'].lower() and 'this object' in sample['view_caption']
    near, far = (source.portrait(scene, name) for name in (True, False))
    for shown in (near, far, source.portrait(scene, True, 1)):
      (solid,) = shown.solids
      assert object_of(solid) == sample['identity'] == object_of(scene.solids[0]) != other
      assert solid.yaw != scene.solids[0].yaw and shown.light != scene.light
    assert (sample['reference'][0] != sample['reference'][1]).any()
    # It fills a reference.
    alone = SMALL(frames=1, extras=('segmentation',))
    shares = [(alone.show(each)['segmentation'] > 0).mean() for each in (near, far)]
    assert shares[0] > 2 * shares[1]
  recoloured = dataclasses.replace(source.scene(0).solids[0], second='white')
  assert object_of(recoloured) != object_of(source.scene(0).solids[0])
