"""The documentation site: every page can be reached, every link has an end, nothing warns."""

import importlib.util
import pathlib
import re

import pytest

from tests.binaries import python

CHECKOUT = pathlib.Path(__file__).parent.parent.parent
DOCS = CHECKOUT / 'docs'
INDEX = DOCS / 'index.md'
LINK = re.compile(r'\]\(([^)\s#]*)#([^)\s]+)\)')
FENCE = re.compile(r'^```.*?^```$', re.MULTILINE | re.DOTALL)
PAGES = [path for path in sorted(DOCS.rglob('*.md')) if '_build' not in path.parts]
NOT_THERE = [
  name
  for name in ('myst_nb', 'sphinx', 'sphinx_book_theme', 'sphinx_copybutton')
  if importlib.util.find_spec(name) is None
]


def listed():
  """The pages that lists of the first page lead to; the site makes its side bar of these."""
  found = set()
  for target in re.findall(r'^- .*?\]\((?!http)([^)#]+)\)', INDEX.read_text(), re.MULTILINE):
    path = (DOCS / target).resolve()
    found |= set(path.glob('*.md')) if target.endswith('/') else {path}
  return found


def anchors(path):
  """The names of a page's headings, as GitHub and the site make them."""
  found = set()
  for heading in re.findall(r'^#+ (.+)$', FENCE.sub('', path.read_text()), re.MULTILINE):
    plain = re.sub(r'\[([^]]*)\]\([^)]*\)', r'\1', heading).lower()
    name = re.sub(r'[^\w\- ]', '', plain).replace(' ', '-')
    found.add(name if name not in found else f'{name}-1')
  return found


def test_every_page_and_notebook_is_in_the_side_bar():
  notebooks = {path.with_suffix('.ipynb') for path in (CHECKOUT / 'notebooks').glob('*.py')}
  assert {*PAGES, *notebooks} - listed() == {INDEX}


def test_the_side_bar_leads_to_what_is_there():
  assert [path for path in listed() if not path.exists()] == []


@pytest.mark.parametrize('page', [*PAGES, CHECKOUT / 'README.md'], ids=lambda page: page.name)
def test_links_to_sections_have_a_section(page):
  for target, anchor in LINK.findall(FENCE.sub('', page.read_text())):
    if not target.startswith('http'):
      other = (page.parent / target).resolve() if target else page
      assert anchor in anchors(other), f'{page.name} links to {target}#{anchor}'


@pytest.mark.slow
@pytest.mark.skipif(NOT_THERE != [], reason="needs the extra docs: pip install 'mgjax[docs]'")
def test_the_site_builds_without_a_warning(tmp_path):
  command = ('-m', 'sphinx', '--quiet', '--fail-on-warning', '--conf-dir', 'docs')
  places = ('--doctree-dir', tmp_path / 'doctrees', '.', tmp_path / 'html')
  python(*command, *places)
  pages = {path.relative_to(CHECKOUT).with_suffix('.html') for path in PAGES}
  built = {path.relative_to(tmp_path / 'html') for path in (tmp_path / 'html/docs').rglob('*.html')}
  assert pages <= built
  path = (tmp_path / 'html/docs/reference/map.html').read_text()
  assert 'href="../api/mgjax.flow.html#module-mgjax.flow.path"' in path  # paths of code are links
