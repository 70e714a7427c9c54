"""Costs of scores, of a clip and of very many."""

import numpy as np
import pyarrow
import pytest

from mgjax.lab.curation.costs import costs_of, describe_costs

COUNT = 200
# Processor seconds of a clip.
SPENT = {'probe': 0.01, 'decode': 0.4, 'shots': 0.1, 'text': 1.0, 'borders': 0.1, 'motion': 0.2}


def table(count=COUNT, **more):
  numbers = np.arange(count)
  columns = {
    'video': [f'{n // 2}.mp4' for n in numbers],
    'clip': [f'{n // 2}.mp4#{n % 2}' for n in numbers],
    'place': numbers // 2,
    'decoded': np.full(count, 50),
    'packets': np.full(count, 50),
    'seconds_of': [SPENT] * count,
    'error': pyarrow.array([None] * count, pyarrow.string()),
  }
  return pyarrow.table(columns | more)


def test_frames_count_once_a_video_and_videos_that_were_not_decoded_apart():
  found = costs_of(table())
  assert (found.clips, found.decoded, found.packets) == (200, 5000, 5000)
  assert found.seconds['text'] == pytest.approx(200.0)
  gated = pyarrow.array(['width 1 < 2'] * 50 + [None] * 150, pyarrow.string())
  errors = pyarrow.array([None] * 190 + ['broken'] * 10, pyarrow.string())
  found = costs_of(table(gated=gated, error=errors))
  assert (found.clips, found.gated, found.decoded) == (140, 50, 70 * 50)


def test_what_is_printed_says_what_scores_and_very_many_clips_take():
  costs = costs_of(table())
  assert costs.all == pytest.approx(sum(SPENT.values()))
  text = '\n'.join(describe_costs(costs))
  assert 'of a processor: text 1 s, decode 0.4 s, motion 0.2 s' in text
  # 1.81 s each: 100 million are 2,095 days of a core, 30 days of 70 cores.
  assert '100,000,000 clips' in text and '2,095 days of a core' in text and '70 cores' in text
  empty = table(2, error=pyarrow.array(['broken'] * 2, pyarrow.string()))
  assert describe_costs(costs_of(empty)) == []
