"""Every row of the registry leads somewhere, and commands say what a component cannot."""

import dataclasses

import pytest

from mgjax.core.errors import ConfigError
from mgjax.models.foreign_weights.format import WeightFormat
from mgjax.registry import COMPONENTS, Component, Late, feature, find_component

WORDS = ('noun', 'family', 'suites', 'sample_command', 'weights_of')
FIELDS = [field.name for field in dataclasses.fields(Component) if field.name not in WORDS]


@pytest.mark.parametrize('component', COMPONENTS)
def test_what_a_row_names_is_there(component):
  row = COMPONENTS[component]
  assert row.family in ('flow model', 'autoencoder', 'codec', 'contrastive', 'encoder')
  for name in FIELDS:
    if (late := getattr(row, name)) is not None:
      found = late.get()
      assert isinstance(found, WeightFormat) if name == 'weights' else callable(found), name
  assert all(isinstance(late.get(), WeightFormat) for late in row.weights_of.values())


def test_what_can_be_trained_can_be_loaded():
  for component, row in COMPONENTS.items():
    if row.section is not None:
      assert row.load is not None, component
    assert row.request is not None or not row.suites, component


def test_what_a_component_cannot_is_said():
  with pytest.raises(ConfigError, match='unknown component vidoe; did you mean video'):
    find_component('vidoe')
  with pytest.raises(
    ConfigError, match=r"'t5' is not one that can be trained; those are .*autoencod"
  ):
    feature('t5', 'section', 'can be trained')


def test_nothing_is_imported_before_it_is_needed():
  Late('mgjax.nowhere:nothing')
