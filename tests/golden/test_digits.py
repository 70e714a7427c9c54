"""Golden samples of moving digits, tests/golden/digits.npz.

A new field of the world must leave the samples of all others as they are. Where they shall change:

MGJAX_UPDATE_GOLDEN=1 python -m pytest tests/golden/test_digits.py
"""

import os
import pathlib

import numpy as np
import pytest

from mgjax.lab.worlds.digits.clips import Digits
from mgjax.lab.worlds.digits.scene import COLOURS, MOTIONS, TEXTURES
from mgjax.lab.worlds.digits.signs import Signs

FILE = pathlib.Path(__file__).parent / 'digits.npz'
ALL = {'captions': 'all', 'motions': tuple(MOTIONS), 'colours': tuple(COLOURS), 'frames': 3}
WORLDS = {
  'plain': Digits(),
  'image': Digits(frames=1, size=(64, 64)),
  'held out': Digits(captions='held_out', frames=4, split='test'),
  'coloured': Digits(background='coloured', size=(48, 80), **ALL),
  'gradient': Digits(background='gradient', size=(64, 48), seed=1, **ALL),
  'loud': Digits(sound=True, **(ALL | {'motions': ('bounce', 'fall'), 'frames': 8})),
  'large': Digits(laps=2.5, jitter=7.0, digit_size=21.0, **ALL),
  'sign': Signs(frames=4),
  'unseen sign': Signs(captions='held_out', split='test', size=(64, 96), frames=1),
  'mosaic': Digits(background='mosaic', textures=tuple(TEXTURES), size=(64, 64), **ALL),
  'textured sign': Signs(split='filter', textures=('checked',), size=(64, 96), **ALL),
}
MADE = {'video', 'caption', 'digit', 'number', 'colour', 'motion', 'audio', 'events'}


def samples_of(world):
  """What the first samples of a world have: name -> array."""
  found = {}
  for index in range(3):
    sample = WORLDS[world][index]
    if 'audio' in sample:
      sample['audio'] = sample['audio'][::37]
    found |= {f'{world}/{index}/{name}': np.asarray(sample[name]) for name in MADE & sample.keys()}
  return found


@pytest.fixture(scope='module', autouse=True)
def updated():
  if os.environ.get('MGJAX_UPDATE_GOLDEN'):
    np.savez_compressed(FILE, **{k: v for world in WORLDS for k, v in samples_of(world).items()})


@pytest.mark.parametrize('world', WORLDS)
def test_samples_are_the_golden_ones(world):
  found = samples_of(world)
  with np.load(FILE) as golden:
    assert {name for name in golden.files if name.startswith(f'{world}/')} == found.keys()
    for name, value in found.items():
      wanted = golden[name]
      assert value.dtype == wanted.dtype and value.shape == wanted.shape, name
      if value.dtype.kind == 'U':
        assert value == wanted, name
      elif name.endswith('video'):  # another machine may sum in another order
        off = np.abs(value.astype(int) - wanted)
        assert off.max() <= 1 and off.mean() < 1e-3, name
      else:
        np.testing.assert_allclose(value, wanted, atol=1e-6, err_msg=name)
