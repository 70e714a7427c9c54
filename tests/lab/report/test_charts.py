"""Histograms and intervals show their values, in words as well."""

import math
import re
import xml.etree.ElementTree as ElementTree

import numpy as np
import pytest

from mgjax.lab.report import charts


def parsed(drawn):
  """The SVG element and the legend."""
  svg, end, legend = drawn.partition('</svg>')
  return ElementTree.fromstring(svg + end), legend


def bars(svg):
  """Of each group, (x, y, width, height) of its bars."""
  return [
    [tuple(float(rect.get(name)) for name in ('x', 'y', 'width', 'height')) for rect in group]
    for group in (
      [element for element in group_element if element.tag == 'rect']
      for group_element in svg.iter('g')
    )
  ]


def test_bars_are_as_high_as_their_counts_and_stand_upon_one_another():
  kept, dropped = np.array([1.0, 1.0, 1.0, 9.0]), np.array([1.0])
  svg, legend = parsed(charts.histogram('score', {'kept': kept, 'dropped': dropped}, {'0.6': 5.0}))
  (low, high), (top,) = bars(svg)
  assert low[3] / high[3] == np.float64(3) and top[3] == high[3]
  assert top[0] == low[0] and abs(top[1] + top[3] - low[1]) < 0.11  # numbers have one decimal
  assert abs(low[1] + low[3] - (charts.HEIGHT - charts.BOTTOM)) < 0.11
  assert 'kept: 4' in legend and 'dropped: 1' in legend
  assert '0.6 at 5' in svg.get('aria-label')


def test_what_lies_far_away_counts_in_the_last_bar():
  values = np.append(np.linspace(0, 1, 999), 1e9)
  svg, legend = parsed(charts.histogram('score', {'all': values}))
  assert 'all: 1,000' in legend
  (heights,) = bars(svg)
  assert len(heights) > 30  # not one bar of everything and one of the far value


def test_a_line_lies_on_the_axis_wherever_the_values_are():
  svg, _ = parsed(charts.histogram('score', {'all': np.full(5, 3.0)}, {'least': 10.0}))
  (mark,) = [line for line in svg.iter('line') if line.get('class') == 'mark']
  (((x, _, width, _),),) = bars(svg)
  assert x + width < float(mark.get('x1')) < 520


def test_without_a_finite_value_nothing_is_drawn():
  assert charts.histogram('score', {'all': np.array([np.nan, np.inf])}) == ''
  assert charts.histogram('score', {}) == ''


def test_titles_are_escaped():
  drawn = charts.histogram('<b>&', {'<i>': np.ones(2)}, {'<u>': 1.0})
  assert not re.search('<(i|u)>', drawn) and '&lt;i&gt;' in drawn


def test_a_point_stands_where_its_value_is_and_words_say_it():
  drawn = charts.interval_chart(
    'Net <win> rate', {'overall': (50.0, 40.0, 60.0), 'realness': (-50, -100, 0)}
  )
  places = [float(x) for x in re.findall(r'circle cx="([\d.]+)"', drawn)]
  zero = float(re.search(r'class="mark" x1="([\d.]+)"', drawn)[1])
  assert abs((places[0] - zero) + (places[1] - zero)) < 0.2 and places[1] > charts.NAMES
  assert 'aria-label="Net &lt;win&gt; rate. overall: 50.0 from 40.0 to 60.0; realness:' in drawn
  assert '<win>' not in drawn


def test_what_is_not_finite_is_left_out_and_nothing_is_no_chart():
  drawn = charts.interval_chart('x', {'a': (math.nan, 0, 1), 'b': (0, 0, 0)})
  assert drawn.count('<circle') == 1
  assert charts.interval_chart('x', {'a': (math.nan, 0, 1)}) == charts.interval_chart('x', {}) == ''


@pytest.mark.parametrize('span', [(0.0, 1.0), (0.0, 210_000.0), (-3.2, 0.07), (0.301, 0.302)])
def test_ticks_are_few_round_and_inside(span):
  low, high = span
  ticks = charts.ticks(low, high)
  assert 3 <= len(ticks) <= 8
  slack = (high - low) * 1e-9
  assert all(low - slack <= value <= high + slack for value in ticks)
  digits = [f'{value:.10e}'.split('e')[0].rstrip('0') for value in ticks if abs(value) > slack]
  assert all(len(mantissa) <= 6 for mantissa in digits)
