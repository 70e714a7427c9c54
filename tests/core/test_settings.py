"""Fields say their ranges, and what is outside is refused by its whole name."""

import dataclasses
import math
from collections.abc import Mapping
from typing import Annotated

import flax.linen as nn
import hypothesis
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import strategies

from mgjax.core.errors import ConfigError
from mgjax.core.settings import (
  FURTHEST,
  LARGEST_INTEGER,
  Count,
  Magnitude,
  Positive,
  Range,
  check,
  unpack,
  unpack_kind,
)


@dataclasses.dataclass(frozen=True)
class Inner:
  rate: Annotated[float, Range(above=0, most=1)] = 0.5

  def __post_init__(self):
    check(self)
    if self.rate == 0.25:
      raise ConfigError('rate = 0.25; expected anything else')


@dataclasses.dataclass(frozen=True)
class Settings:
  count: Count
  clip: Annotated[float, Range(above=0, infinite=True)] = 1.0
  sizes: tuple[Positive, ...] = (1,)
  pair: tuple[Positive, Positive] | None = None
  weights: Mapping[str, Magnitude] = dataclasses.field(default_factory=dict)
  inner: Inner = Inner()
  name: str = ''
  flag: bool = False


class Module(nn.Module):
  width: Positive
  dtype: jnp.dtype = jnp.float32


def test_lists_and_dictionaries_become_what_the_fields_are():
  fields = {'count': 3, 'sizes': [1, 2], 'pair': [3, 4], 'inner': {'rate': 1}, 'weights': {'a': 0}}
  assert unpack(Settings, fields, 'place') == Settings(3, 1.0, (1, 2), (3, 4), {'a': 0}, Inner(1))
  assert unpack(Module, {'width': 8, 'dtype': 'bfloat16'}, 'model').dtype == jnp.bfloat16


def test_a_kind_names_its_class_and_has_a_default():
  kinds = {'inner': Inner, 'settings': Settings}
  fields = {'kind': 'settings', 'count': 3}
  assert unpack_kind(kinds, fields, 'place', 'inner') == Settings(3)
  assert fields == {'kind': 'settings', 'count': 3}
  assert unpack_kind(kinds, {'rate': 1.0}, 'place', 'inner') == Inner(1.0)
  with pytest.raises(ConfigError, match=r"place.kind = 'other'; expected one of inner, settings"):
    unpack_kind(kinds, {'kind': 'other'}, 'place', 'inner')
  with pytest.raises(ConfigError, match=r"place.kind = \['inner'\]; expected one of"):
    unpack_kind(kinds, {'kind': ['inner']}, 'place', 'inner')


@pytest.mark.parametrize(
  ('fields', 'said'),
  [
    ({'count': -1}, r'place\.count = -1; expected a whole number from 0 to 2147483647'),
    ({'count': 10**20}, r'place\.count = 1000'),
    ({'count': 1.0}, r'place\.count = 1\.0; expected a whole number'),
    ({'count': True}, r'place\.count = True'),
    ({'count': None}, r'place\.count = None'),
    ({}, r'place\.count is missing'),
    ({'cuont': 1}, r'unknown key place\.cuont; did you mean place\.count\?'),
    ({'count': 1, 'clip': math.nan}, r'place\.clip = nan; expected a number above 0'),
    ({'count': 1, 'clip': -math.inf}, r'place\.clip = -inf'),
    ({'count': 1, 'sizes': [1, 0]}, r'place\.sizes = 0; expected a whole number from 1'),
    ({'count': 1, 'sizes': 3}, r'place\.sizes = 3; expected a list'),
    ({'count': 1, 'pair': [1]}, r'place\.pair = \[1\]; expected 2 values'),
    ({'count': 1, 'weights': {'a': math.inf}}, r'place\.weights\.a = inf; expected a finite'),
    ({'count': 1, 'weights': [1]}, r'place\.weights = \[1\]; expected fields with names'),
    ({'count': 1, 'inner': {'rate': 0}}, r'place\.inner\.rate = 0; expected .* above 0 to 1'),
    ({'count': 1, 'inner': {'rate': 0.25}}, r'place\.inner: rate = 0\.25; expected anything else'),
    ({'count': 1, 'name': 3}, r'place\.name = 3; expected text'),
    ({'count': 1, 'flag': 1}, r'place\.flag = 1; expected True or False'),
  ],
)
def test_what_a_field_cannot_be_is_refused_by_its_whole_name(fields, said):
  with pytest.raises(ConfigError, match=said):
    unpack(Settings, fields, 'place')


def test_what_python_makes_is_held_to_the_same():
  with pytest.raises(ConfigError, match=r'rate = 2; expected'):
    Inner(2)
  assert Inner(np.float32(0.5)).rate == 0.5


@hypothesis.given(
  strategies.floats() | strategies.integers(),
  strategies.none() | strategies.integers(-3, 3),
  strategies.none() | strategies.integers(-3, 3),
  strategies.booleans(),
)
def test_a_range_admits_the_numbers_between_its_ends(value, least, below, whole):
  admitted = Range(least=least, below=below).admits(value, whole)
  furthest = LARGEST_INTEGER if whole else FURTHEST
  counted = abs(value) <= furthest and (not whole or isinstance(value, int))  # nan does not
  inside = (least is None or value >= least) and (below is None or value < below)
  assert admitted == (counted and inside)
