"""Charts of intervals say what they show, in words as well."""

import math
import re

from mgjax.runtime.report.intervals import NAMES, interval_chart


def test_a_point_stands_where_its_value_is_and_words_say_it():
  chart = interval_chart(
    'Net <win> rate', {'overall': (50.0, 40.0, 60.0), 'realness': (-50, -100, 0)}
  )
  places = [float(x) for x in re.findall(r'circle cx="([\d.]+)"', chart)]
  zero = float(re.search(r'class="mark" x1="([\d.]+)"', chart)[1])
  assert abs((places[0] - zero) + (places[1] - zero)) < 0.2 and places[1] > NAMES
  assert 'aria-label="Net &lt;win&gt; rate. overall: 50.0 from 40.0 to 60.0; realness:' in chart
  assert '<win>' not in chart


def test_what_is_not_finite_is_left_out_and_nothing_is_no_chart():
  chart = interval_chart('x', {'a': (math.nan, 0, 1), 'b': (0, 0, 0)})
  assert chart.count('<circle') == 1
  assert interval_chart('x', {'a': (math.nan, 0, 1)}) == interval_chart('x', {}) == ''
