"""Histograms count every value once, and funnels draw shares on a logarithmic axis."""

import re
import xml.etree.ElementTree as ElementTree

import numpy as np

from mgjax.runtime.report.charts import BOTTOM, HEIGHT
from mgjax.runtime.report.histogram import funnel_chart, histogram


def parsed(drawn):
  """The SVG element and the legend."""
  svg, end, legend = drawn.partition('</svg>')
  return ElementTree.fromstring(svg + end), legend


def bars(svg):
  """Of each group, (x, y, width, height) of its bars."""
  return [
    [tuple(float(rect.get(name)) for name in ('x', 'y', 'width', 'height')) for rect in group]
    for group in ([each for each in found if each.tag == 'rect'] for found in svg.iter('g'))
  ]


def test_bars_are_as_high_as_their_counts_and_stand_upon_one_another():
  kept, dropped = np.array([1.0, 1.0, 1.0, 9.0]), np.array([1.0])
  svg, legend = parsed(histogram('score', {'kept': kept, 'dropped': dropped}, {'0.6': 5.0}))
  (low, high), (top,) = bars(svg)
  assert low[3] / high[3] == np.float64(3) and top[3] == high[3]
  assert top[0] == low[0] and abs(top[1] + top[3] - low[1]) < 0.11  # numbers have one decimal
  assert abs(low[1] + low[3] - (HEIGHT - BOTTOM)) < 0.11
  assert 'kept: 4' in legend and 'dropped: 1' in legend
  assert '0.6 at 5' in svg.get('aria-label')


def test_what_lies_far_away_counts_in_the_last_bar():
  values = np.append(np.linspace(0, 1, 999), 1e9)
  svg, legend = parsed(histogram('score', {'all': values}))
  assert 'all: 1,000' in legend
  (found,) = bars(svg)
  assert len(found) > 30  # not one bar of everything and one of the far value


def test_a_line_lies_on_the_axis_wherever_the_values_are():
  svg, _ = parsed(histogram('score', {'all': np.full(5, 3.0)}, {'least': 10.0}))
  (mark,) = [line for line in svg.iter('line') if line.get('class') == 'mark']
  (((x, _, width, _),),) = bars(svg)
  assert x + width < float(mark.get('x1')) < 520


def test_without_a_finite_value_nothing_is_drawn():
  assert histogram('score', {'all': np.array([np.nan, np.inf])}) == ''
  assert histogram('score', {}) == '' and funnel_chart('funnel', {}, ('a', 'b')) == ''


def test_titles_are_escaped():
  drawn = histogram('<b>&', {'<i>': np.ones(2)}, {'<u>': 1.0})
  assert not re.search('<(i|u)>', drawn) and '&lt;i&gt;' in drawn
  drawn = funnel_chart('<i>', {'<u>': (0.5, None)}, ('<s>', ''))
  assert not re.search('<(i|u|s)>', drawn)


def test_a_funnel_has_a_tenth_of_the_axis_for_every_tenth_of_the_clips():
  rows = {'a': (1.0, 1.0), 'b': (0.1, 0.01), 'c': (0.01, None), 'd': (0.0, None)}
  svg, legend = parsed(funnel_chart('funnel', rows, ('here', 'there')))
  (all_here, all_there), (tenth, hundredth), (own,), none = bars(svg)
  assert all_here[2] == all_there[2] and abs(all_here[2] - 2 * tenth[2]) < 0.21
  assert own[2] == hundredth[2] == 1.0 and not none  # the end of the axis
  assert 'here' in legend and 'there' in legend
  assert 'c: 1%' in svg.get('aria-label') and 'd: 0%' in svg.get('aria-label')
