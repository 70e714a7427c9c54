"""Pages, docstrings and errors keep to the rules of tests/prose.py."""

import pytest

from tests import prose


@pytest.mark.parametrize('path', (*prose.PACKAGES, *prose.PAGES))
def test_clean_prose_stays_clean(path):
  assert [str(found) for found in prose.findings((path,))] == []


def test_pages_keep_to_the_budget():
  assert prose.total_words() <= prose.TOTAL


def test_the_allow_list_is_short_and_has_no_sentences():
  assert len(prose.ALLOWED) <= 60
  assert [entry for entry in prose.ALLOWED if len(entry.split()) > 4 or entry.endswith('.')] == []


def found_in(text):
  return [(found.rule, found.words) for found in prose.check_page('docs/how_to/page.md', text)]


@pytest.mark.parametrize(
  ('text', 'rule', 'words'),
  [
    ('The report says so.', 'word', 'The report'),
    ('Models that come with mgjax\nare small.', 'word', 'come with mgjax'),
    ('A model is told the frame rate.', 'word', 'is told'),
    ('It is measured in turns.', 'word', 'in turns'),
    ('The share is .95 of it.', 'decimal', '.95'),
    ('Some 600 pages.', 'word', 'Some 600'),
    ('a ' * 36, 'long', 'a a a a a a a a ... (36 words)'),
    ('It has 5 of 7 or 30%.', 'numbers', 'It has 5 of 7 or 30%. ... (5, 7, 30%)'),
    ('a\n\n' * 901, 'page', '901 words'),
  ],
)
def test_each_rule_finds_its_breach(text, rule, words):
  assert found_in(text) == [(rule, words)]


@pytest.mark.parametrize(
  'text',
  [
    'The judge reported 3 errors in turn, by hand; the report page is below.',
    'See §3.1.1, §3.4.2, Table 12 and arXiv 2410.13720 of 17 October 2024.',
    'mgjax 0.3 needs Python 3.11 or 3.12 and JAX 0.10.2.',
    'Patches of 1 x 2 x 2 of videos of 16 x 256 x 256 px in 8 tiles.',
    'Flags: `--scale=.5 --the report --a=1 --b=2 --c=3`.',
    '```sh\nthe report .95 1 2 3 4 5\n```\n',
    '| the report | .95 | 1 | 2 | 3 |\n',
    'A video player has no race condition.',
    'Peebles and Xie (2023), Esser et al. (2021), Dehghani et al. (2023).',
  ],
)
def test_no_rule_misfires(text):
  assert found_in(text) == []


def test_docstrings_and_errors_are_read():
  module = '''"""The report.

Args:
  count: of sounds.

    x = .5 + 1 2 3 4
"""
raise ValueError(f'{name}: it comes along' ' aloud')
'''
  found = [(each.line, each.words) for each in prose.check_module('mgjax/a.py', module)]
  assert found == [(1, 'The report'), (4, 'sounds'), (8, 'comes along'), (8, 'aloud')]
