"""docs/explanation/architecture.md names every package once, and tests that are there; so does its
picture."""

import pathlib
import re

from tests.test_architecture import ORDER

CHECKOUT = pathlib.Path(__file__).parent.parent.parent
TEXT = (CHECKOUT / 'docs/explanation/architecture.md').read_text()
PICTURE = (CHECKOUT / 'docs/images/architecture.svg').read_text()
ROWS = dict(re.findall(r'^\| `mgjax/(\w+)` \|.*?\| (.*) \|$', TEXT, re.MULTILINE))
PACKAGES = {
  name.partition('.')[0]
  for line in ORDER
  for name in line
  if name not in ('registry', 'api', 'moved')
}


def test_every_package_of_the_arrows_has_its_row_and_its_place_in_the_picture():
  assert set(ROWS) == PACKAGES
  assert set(re.findall(r'<text[^>]*>(\w+)</text>', PICTURE)) >= PACKAGES


def test_the_tests_that_hold_a_package_are_there():
  for package, held in ROWS.items():
    named = re.findall(r'`(tests/[\w/.]+)`', held)
    assert named, package
    for test in named:
      path = CHECKOUT / test
      found = [path] if path.is_file() else path.rglob('*.py')
      assert any('def test_' in each.read_text() for each in found), f'{test} tests nothing'
