"""docs/rooms.md has a short paragraph for every room, with tests that are there."""

import pathlib
import re

import pytest

CHECKOUT = pathlib.Path(__file__).parent.parent.parent
TEXT = (CHECKOUT / 'docs/rooms.md').read_text()
ROOMS = sorted(path.parent.name for path in (CHECKOUT / 'mgjax').glob('*/__init__.py'))
PARAGRAPHS = dict(re.findall(r'^\*\*`mgjax/(\w+)`\*\* (.*?)\n\n', TEXT, re.MULTILINE | re.DOTALL))


def test_every_room_stands_there_once_and_nothing_else():
  assert sorted(re.findall(r'^\*\*`mgjax/(\w+)`\*\*', TEXT, re.MULTILINE)) == ROOMS
  assert sorted(PARAGRAPHS) == ROOMS


@pytest.mark.parametrize('room', ROOMS)
def test_a_room_says_who_looks_there_and_which_tests_hold_it(room):
  paragraph = PARAGRAPHS[room]
  assert paragraph.startswith('is for whoever ') and len(paragraph.split()) < 82
  tests = re.findall(r'`(tests/[\w/.]+)`', paragraph)
  assert tests, f'{room} names no test'
  for test in tests:
    path = CHECKOUT / test
    assert path.exists(), f'there is no {test}'
    imported = [file.read_text() for file in ([path] if path.is_file() else path.rglob('*.py'))]
    assert any('def test_' in text for text in imported), f'{test} tests nothing'


def test_all_rooms_of_the_arrows_stand_there():
  architecture = (CHECKOUT / 'tests/test_architecture.py').read_text()
  order = re.search(r'^ORDER = \((.*?)^\)', architecture, re.MULTILINE | re.DOTALL)[1]
  named = {name.partition('.')[0] for name in re.findall(r"'([\w.]+)'", order)}
  files = {path.stem for path in (CHECKOUT / 'mgjax').glob('*.py')}
  assert named - files <= set(ROOMS)
