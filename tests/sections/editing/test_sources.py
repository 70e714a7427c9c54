"""Pairs as editing is trained on them: of pictures that are moved, of black, of manifests."""

import json

import numpy as np
import pytest

from configs.digits import editing
from mgjax.core.errors import ConfigError
from mgjax.data.buckets import Shape
from mgjax.data.media.viewing import write_clip
from mgjax.data.settings import data_settings
from mgjax.data.sources import make_sources
from mgjax.lab.worlds.digits.clips import Digits
from mgjax.sections.editing.section import Edits
from mgjax.sections.editing.sources import (
  Animated,
  AnyPlace,
  Motion,
  WithBlack,
  animate,
  draw_motion,
)

WORLD = {'background': 'tinted', 'motions': ('left', 'right', 'bounce'), 'frames': 1}
STILL = Motion(shift=0.0, zoom=0.0, turn=0.0)


def pairs(*edits, **fields):
  return Digits(**WORLD, edits=edits or ('recolour', 'background'), **fields)


def test_without_motion_an_animated_picture_stands_still():
  source = pairs()
  moved = Animated(source, 4, STILL, '', seed=0)[3]
  for name in ('video', 'source_video'):
    assert (moved[name] == source[3][name]).all()  # t h w 3 beside 1 h w 3


def test_both_pictures_of_a_pair_move_alike():
  source = pairs('nothing')
  moved = Animated(source, 6, Motion(), 'animated: ', seed=0)
  for index in range(4):
    assert (moved[index]['video'] == moved[index]['source_video']).all()
    assert not (moved[index]['video'][0] == moved[index]['video'][-1]).all()
    assert moved[index]['caption'] == 'animated: ' + source[index]['caption']


def test_a_shift_by_whole_pixels_is_a_roll():
  picture = np.random.default_rng(0).integers(256, size=(16, 16, 3), dtype=np.uint8)
  maps = np.array([[[1.0, 0.0, 3 / 16], [0.0, 1.0, -2 / 16]]])
  (frame,) = animate(picture, maps)
  np.testing.assert_array_equal(frame[:12, 3:], picture[3:15, 1:14])


def test_a_quarter_turn_and_half_a_turn_are_exact():
  picture = np.random.default_rng(1).integers(256, size=(12, 12, 3), dtype=np.uint8)
  turns = [[[0.0, -1.0, 0.0], [1.0, 0.0, 0.0]], [[-1.0, 0.0, 0.0], [0.0, -1.0, 0.0]]]
  quarter, half = animate(picture, np.array(turns))
  np.testing.assert_array_equal(half, picture[::-1, ::-1])
  assert any((quarter == np.rot90(picture, k)).all() for k in (1, 3))


def test_motions_keep_within_their_limits_and_speed_is_constant():
  motion = Motion(shift=0.2, zoom=0.5, turn=20.0)
  for seed in range(50):
    maps = draw_motion(motion, 5, np.random.default_rng(seed))
    zoom = 1 / np.sqrt(np.linalg.det(maps[:, :, :2]))
    angle = np.degrees(np.arctan2(maps[:, 1, 0], maps[:, 0, 0]))
    assert np.abs(maps[:, :, 2]).max() <= 0.2
    assert zoom.min() >= 1 - 1e-9 and zoom.max() <= 1.5 + 1e-9
    assert np.abs(angle).max() <= 20 + 1e-9
    for way in (zoom, angle, *maps[:, :, 2].T):
      np.testing.assert_allclose(np.diff(way, n=2), 0, atol=1e-9)


def test_a_motion_is_a_function_of_seed_and_index():
  one, same, other = (Animated(pairs(), 4, Motion(), '', seed) for seed in (0, 0, 1))
  np.testing.assert_array_equal(one[5]['video'], same[5]['video'])
  assert not (one[5]['video'] == other[5]['video']).all()
  assert one.fingerprint == same.fingerprint != other.fingerprint


def test_every_instruction_of_animated_pairs_is_known_beforehand():
  moved = Animated(pairs(), 2, Motion(), 'animated: ', seed=0)
  known = {sample['caption'] for sample in moved.every_caption()}
  assert {moved[index]['caption'] for index in range(40)} <= known


def test_clips_to_make_are_edits_of_black():
  sample = WithBlack(Digits(frames=2))[0]
  assert sample['source_video'].shape == sample['video'].shape
  assert not sample['source_video'].any() and sample['task'] == ''


def test_a_pair_keeps_its_own_source():
  source = pairs()
  np.testing.assert_array_equal(WithBlack(source)[0]['source_video'], source[0]['source_video'])


def test_pictures_stand_at_every_place_as_often():
  placed = AnyPlace(pairs('nothing', length=2000), 4, seed=0)
  counts = np.bincount([placed[i]['temporal_place'] for i in range(400)], minlength=4)
  # Binomial (400, 1/4): 100 give or take 8.7; five deviations.
  assert len(counts) == 4 and np.abs(counts - 100).max() < 44


def test_a_manifest_of_pairs_gives_both_clips_of_one_window(tmp_path):
  ramp = (
    np.zeros((20, 32, 32, 3), np.uint8) + 10 * np.arange(20, dtype=np.uint8)[:, None, None, None]
  )
  write_clip(tmp_path / 'after.mp4', ramp, 8, 1)
  write_clip(tmp_path / 'before.mp4', 255 - ramp, 8, 1)
  rows = [
    {'video': 'after.mp4', 'caption': 'invert it', 'source_video': 'before.mp4', 'task': 'style'},
    {'video': 'after.mp4', 'caption': 'invert it', 'source_video': 'missing.mp4'},
  ]
  manifest = tmp_path / 'pairs.jsonl'
  manifest.write_text('\n'.join(map(json.dumps, rows)))
  data = data_settings({'kind': 'clips', 'path': str(manifest), 'fps': 8})
  shapes = {'clips': Shape(16, 32, 32, (8, 8))}
  source = make_sources(data, shapes, 'train', tmp_path / 'rejected.jsonl')['clips']
  assert len(source) == 1
  assert 'no such file' in (tmp_path / 'rejected.jsonl').read_text()
  sample = source[0]
  assert (sample['caption'], sample['task']) == ('invert it', 'style')
  # Up to what the encoder rounds, one window is the other's complement, frame by frame.
  together = sample['video'].astype(int) + sample['source_video']
  assert np.abs(together - 255).max() <= 6


def test_an_animated_bucket_must_be_there():
  config = editing.get_config('frames')
  config.edits.animated = ('nowhere',)
  with pytest.raises(ConfigError, match=r"'nowhere'.*animated.*marked.*video"):
    Edits.of(config.to_dict())
