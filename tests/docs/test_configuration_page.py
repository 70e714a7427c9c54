"""The page of configurations is what the classes say, and has every field that files state."""

import importlib.util
import pathlib
import re

import pytest

from mgjax.core.configuration.config_files import load_config

DOCS = pathlib.Path(__file__).parent.parent.parent / 'docs'
ELSEWHERE = {'conditionings', 'digits'}  # by their own kinds


@pytest.fixture(scope='module')
def make_configuration():
  spec = importlib.util.spec_from_file_location(
    'make_configuration', DOCS / 'make_configuration.py'
  )
  module = importlib.util.module_from_spec(spec)
  spec.loader.exec_module(module)
  return module


def test_the_page_is_what_the_classes_say(make_configuration):
  assert make_configuration.page() == (DOCS / 'reference/configuration.md').read_text(), (
    'run python docs/make_configuration.py'
  )


@pytest.mark.parametrize('name', ['digits/video', 'tae/tae', 'audio/codec', 'upsampler/upsampler'])
def test_fields_of_files_are_on_the_page_with_their_defaults(name, make_configuration):
  text = make_configuration.page()
  config = load_config(name).to_dict()
  for group in ('optimizer', 'train', 'lora', 'model', 'objective', 'data'):
    for field in config[group].keys() - ELSEWHERE:
      assert re.search(rf'^\| `{field}` \|', text, re.MULTILINE), f'{group}.{field}'
  assert re.search(r'^\| `remat` \| `.nothing.` \| text \| what the backward', text, re.MULTILINE)
  assert re.search(r'^\| `keep` \| `3` \| whole number from 1 \|', text, re.MULTILINE)
