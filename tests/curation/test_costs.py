"""Costs of filters: what each costs at its place in the order."""

import numpy as np
import pyarrow
import pytest

from mgjax.curation.costs import costs_of, describe_costs, expected
from mgjax.curation.settings import CurationSettings, KeepSettings, MeasureSettings

COUNT = 200
# Processor seconds of a clip.
SPENT = {'probe': 0.01, 'decode': 0.4, 'shots': 0.1, 'text': 1.0, 'borders': 0.1, 'motion': 0.2}


def table(count=COUNT, **more):
  """Text drops half of all, borders a tenth, motion eight of ten, the size a quarter."""
  numbers = np.arange(count)
  columns = {
    'video': [f'{n // 2}.mp4' for n in numbers],
    'clip': [f'{n // 2}.mp4#{n % 2}' for n in numbers],
    'place': numbers // 2,
    'width': np.where(numbers % 4 == 0, 100, 1000),
    'height': np.full(count, 900),
    'text_score': np.where(numbers < count // 2, 0.9, 0.1),
    'borders_share': np.where(numbers % 10 == 5, 0.2, 0.0),
    'motion_vmaf': np.where(numbers % 5 == 0, 5.0, 1.0),
    'decoded': np.full(count, 50),
    'packets': np.full(count, 50),
    'seconds_of': [SPENT] * count,
    'error': pyarrow.array([None] * count, pyarrow.string()),
  }
  return pyarrow.table(columns | more)


def settings(*order):
  return CurationSettings(MeasureSettings(), KeepSettings(), order)


ORDER = ('text', 'borders', 'motion', 'resolution')


def test_an_order_costs_what_is_left_when_its_scores_are_first_needed():
  costs = costs_of(table(), settings(*ORDER))
  text, borders, motion, size = costs.order
  assert (text.seconds, borders.seconds) == pytest.approx((1.51, 0.1))
  assert (text.came, borders.came, motion.came) == (1.0, 0.5, 0.45)
  assert motion.seconds == pytest.approx(0.2) and motion.dropped == pytest.approx(80 / 90)
  assert size.seconds == 0, 'the probe is paid'
  by_hand = 1.51 + 0.5 * 0.1 + 0.45 * 0.2
  assert expected(costs.order) == pytest.approx(by_hand)
  assert costs.all == pytest.approx(sum(SPENT.values()))


def test_filters_that_are_off_or_look_at_all_clips_have_no_place():
  costs = costs_of(table(), settings('duplicates', 'text', 'aesthetics', 'concepts'))
  assert [place.name for place in costs.order] == ['text']


def test_frames_count_once_a_video_and_videos_that_were_not_decoded_apart():
  found = costs_of(table(), settings(*ORDER))
  assert (found.clips, found.decoded, found.packets) == (200, 5000, 5000)
  assert found.seconds['text'] == pytest.approx(200.0)
  gated = pyarrow.array(['width 1 < 2'] * 50 + [None] * 150, pyarrow.string())
  errors = pyarrow.array([None] * 190 + ['broken'] * 10, pyarrow.string())
  found = costs_of(table(gated=gated, error=errors), settings(*ORDER))
  assert (found.clips, found.gated, found.decoded) == (140, 50, 70 * 50)


def test_what_is_printed_says_what_filters_and_very_many_clips_take():
  lines = describe_costs(costs_of(table(), settings(*ORDER)))
  text = '\n'.join(lines)
  assert [line.split()[0] for line in lines[1:5]] == [*ORDER]
  # 1.81 s each: 100 million are 2,095 days of a core, 30 days of 70 cores.
  assert '100,000,000 clips' in text and '2,095 days of a core' in text and '70 cores' in text
  empty = table(2, error=pyarrow.array(['broken'] * 2, pyarrow.string()))
  assert describe_costs(costs_of(empty, settings(*ORDER))) == []
