"""A world is a folder and a row: data of it are read, checked and split as of any other."""

import dataclasses
import functools
import pickle
import sys
import types
from typing import ClassVar

import numpy as np
import pytest

from mgjax.core.errors import ConfigError
from mgjax.data import synthetic_datasets as table
from mgjax.data.settings import data_settings
from mgjax.data.shape import Shape
from mgjax.data.sources import make_sources
from mgjax.lab.worlds.digits.clips import Digits
from mgjax.lab.worlds.digits.edits import TASKS
from mgjax.lab.worlds.digits.signs import Signs
from mgjax.lab.worlds.solids.clips import EXTRAS, Solids
from tests.tensors import assert_same

SHAPES = {'video': Shape(4, 8, 8, (6.0, 6.0)), 'image': Shape(1, 8, 8, (6.0, 6.0))}


@dataclasses.dataclass(frozen=True)
class Greys:
  """Frames of one grey each, a step brighter from frame to frame."""

  frames: int = 4
  size: tuple[int, int] = (8, 8)
  length: int = 100
  fps: int = 8
  step: int = 1
  split: str = 'train'
  by_seconds: ClassVar[bool] = True

  @classmethod
  def validation(cls, frames):
    return {'split': 'validation', 'length': 10}

  @property
  def fingerprint(self):
    return repr(self)

  def __len__(self):
    return self.length

  def __getitem__(self, index):
    greys = np.full((self.frames, *self.size, 3), index, np.uint8)
    greys += (self.step * np.arange(self.frames, dtype=np.uint8))[:, None, None, None]
    return {'video': greys, 'caption': f'grey {index} of {self.split} at {self.fps}'}


def test_a_third_world_is_one_module_and_one_row(monkeypatch):
  module = types.ModuleType('greys')
  module.Greys = Greys
  monkeypatch.setitem(sys.modules, 'greys', module)
  monkeypatch.setitem(table.WORLDS, 'greys', table.World('greys:Greys', {}, 'grey'))
  data = data_settings({'kind': 'greys', 'fps': 6, 'greys': {'step': 3}})
  train, validation = (make_sources(data, SHAPES, split) for split in ('train', 'validation'))
  assert (len(train['video']), len(validation['image'])) == (100, 10)
  assert train['video'][7]['video'][:, 0, 0, 0].tolist() == [7, 10, 13, 16]
  assert train['video'][7]['fps'] == 6 and 'fps' not in train['image'][7]
  assert validation['video'][2]['caption'] == 'grey 2 of validation at 6'
  with pytest.raises(ConfigError, match=r'data\.greys\.steps; did you mean data\.greys\.step'):
    data_settings({'kind': 'greys', 'greys': {'steps': 3}})


@pytest.mark.parametrize('world', list(table.WORLDS))
def test_every_world_has_what_sources_are_asked_for(world):
  source = table.open_world(world, {}, 'train', frames=2, size=(32, 64))
  other = table.open_world(world, {}, 'validation', frames=2, size=(32, 64))
  sample = source[1]
  assert sample['video'].shape == (2, 32, 64, 3) and sample['video'].dtype == np.uint8
  assert isinstance(sample['caption'], str) and sample['caption'] == source[1]['caption']
  assert source.fingerprint != other.fingerprint and len(other) < len(source)
  assert (sample['video'] != other[1]['video']).any()


@pytest.mark.parametrize(
  ('make', 'split'),
  [
    (Digits, 'test'),
    (Signs, 'test'),
    (functools.partial(Digits, edits=TASKS, captions='all', background='tinted'), 'test'),
    (functools.partial(Solids, size=(32, 32), sound=True, extras=EXTRAS), 'in_distribution'),
  ],
  ids=['digits', 'signs', 'edits', 'solids'],
)
def test_a_sample_is_a_function_of_seed_split_and_index_up_to_its_length(make, split):
  source = make(frames=4, length=9)
  copy = pickle.loads(pickle.dumps(source))
  for index in (7, 3, 7):
    assert_same(source[index], copy[index])
  others = (source[8], make(frames=4, seed=1)[7], make(frames=4, split=split)[7])
  assert all((source[7]['video'] != other['video']).any() for other in others)
  assert len(source) == 9 and len(list(source)) == 9
  for index in (9, -1):
    with pytest.raises(IndexError, match='of 9 samples'):
      source[index]


def test_another_name_is_refused_with_the_one_that_was_meant():
  with pytest.raises(ConfigError, match='did you mean solids'):
    table.source_of('solid')
