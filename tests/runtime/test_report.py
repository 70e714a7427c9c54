"""The page of a run: what it shows, whatever state the run is in."""

import html.parser
import json
import re

import pytest

from mgjax.core.errors import ConfigError
from mgjax.runtime.charts import chart, thinned, ticks
from mgjax.runtime.report import read_curves, write_report
from tests import tiny

TITLES = re.compile(r'<text class="title"[^>]*>([^<]*)<')


class Balanced(html.parser.HTMLParser):
  """Raises if elements are not closed in the order they were opened."""

  EMPTY = ('meta', 'img')

  def __init__(self):
    super().__init__()
    self.open, self.outside = [], []

  def handle_starttag(self, tag, attrs):
    self.outside += [value for name, value in attrs if name in ('src', 'href')]
    if tag not in self.EMPTY:
      self.open.append(tag)

  def handle_startendtag(self, tag, attrs):
    pass

  def handle_endtag(self, tag):
    assert self.open.pop() == tag


def read(path):
  page = Balanced()
  page.feed(path.read_text())
  assert page.open == []
  assert all(value.startswith('data:') for value in page.outside)  # it needs no other file
  return path.read_text()


def test_the_page_of_a_run_has_its_curves_and_numbers(tiny_runs, tmp_path):
  page = read(write_report(tiny_runs / 'video', tmp_path / 'page.html'))
  wanted = ['Loss', 'Gradient norm', 'Learning rate', 'Seconds per step']
  assert [title for title in TITLES.findall(page) if title in wanted] == wanted
  assert '8 of 8' in page and 'step p99' in page and 'data wait' in page
  loss = tiny.losses(tiny_runs / 'video')[8]['loss']
  assert f'<td>{loss:.4g}</td>' in page


def test_the_page_of_two_players_has_both(tiny_runs, tmp_path):
  page = read(write_report(tiny_runs / 'autoencoder', tmp_path / 'page.html'))
  assert 'psnr' in page


def test_metrics_of_a_kind_share_a_chart_and_none_is_lost(tmp_path):
  (tmp_path / 'config.json').write_text(json.dumps({'component': 'video', 'train': {'steps': 9}}))
  kinds = {
    'Loss': ('loss', 'validation/video/loss'),
    'Loss of images and videos, and by time': ('loss/image', 'loss/time_0_0.25'),
    'Validation loss by kind and time': ('validation/video/loss/video',),
    'Where the time of all attempts went': ('goodput', 'spent/step'),
    'Seconds per step': ('seconds_per_step', 'seconds_per_step_p99'),
    'psnr': ('psnr', 'validation/video/psnr'),
    'something new': ('something new',),
  }
  row = {'step': 1} | {name: 0.25 for names in kinds.values() for name in names}
  (tmp_path / 'metrics.jsonl').write_text(json.dumps(row) + '\n')
  page = read(write_report(tmp_path))
  assert sorted(TITLES.findall(page)) == sorted(kinds)
  for chart_ in page.split('<svg')[1:]:
    names = kinds[TITLES.search(chart_)[1]]
    assert all(f'>{name}</span>' in chart_ for name in names)
    assert chart_.count('</span>') == len(names)


def test_a_run_that_failed_or_just_began_has_a_page(tmp_path):
  (tmp_path / 'config.json').write_text(json.dumps({'component': 'video', 'train': {'steps': 9}}))
  assert 'No metrics yet' in read(write_report(tmp_path))
  rows = ['{"step": 1, "loss": 0.5}', '{"step": 2, "loss": "nan"}', '[]', '{"step": 3, "lo']
  (tmp_path / 'metrics.jsonl').write_text('\n'.join(rows))
  page = read(write_report(tmp_path))
  assert len(read_curves(tmp_path)['loss']) == 2
  assert '2 of 9' in page and '<circle' in page


def test_names_of_metrics_are_text_not_markup(tmp_path):
  (tmp_path / 'config.json').write_text(json.dumps({'component': '<b>', 'train': {'steps': 9}}))
  (tmp_path / 'metrics.jsonl').write_text('{"step": 1, "<script>x": 1}\n')
  assert '<script>' not in read(write_report(tmp_path))


def test_where_nothing_ran_there_is_nothing_to_show(tmp_path):
  with pytest.raises(ConfigError, match='neither a run nor a recipe'):
    write_report(tmp_path)


def test_thinning_keeps_spikes_and_the_ends():
  points = [(float(x), 0.0) for x in range(10_000)]
  points[4321] = (4321.0, 9.0)
  kept = thinned(points, most=100)
  assert len(kept) <= 102 and (4321.0, 9.0) in kept
  assert kept[0] == points[0] and kept[-1] == points[-1]
  assert kept == sorted(kept)


@pytest.mark.parametrize('span', [(0.0, 1.0), (0.0, 210_000.0), (-3.2, 0.07), (0.301, 0.302)])
def test_ticks_are_few_round_and_inside(span):
  low, high = span
  found = ticks(low, high)
  assert 3 <= len(found) <= 8
  slack = (high - low) * 1e-9
  assert all(low - slack <= value <= high + slack for value in found)
  digits = [f'{value:.10e}'.split('e')[0].rstrip('0') for value in found if abs(value) > slack]
  assert all(len(each) <= 6 for each in digits)


def test_values_over_decades_get_a_logarithmic_axis():
  decades = chart('x', {'a': [(0, 1e-4), (1, 1.0)], 'b': [(0, 1e-3)]})
  assert all(f'>{value}<' in decades for value in ('0.0001', '0.001', '0.01', '0.1', '1'))
  assert chart('x', {'a': [(0, float('nan'))]}) == ''
