"""What is said of the camera's paths is what was planted in them."""

import numpy as np
import pytest

from mgjax.lab.evaluation.worlds.camera import compare_paths
from mgjax.lab.worlds.judging import CameraPath
from mgjax.lab.worlds.solids.clips import Solids
from mgjax.lab.worlds.solids.judges.video import make_judge


def paths_of(factor, bend=0.0):
  line = np.linspace(0, 1, 16)
  bent = line + bend * np.sin(np.pi * line)
  return [
    CameraPath('pans left', 'degrees', -degrees * line, -factor * degrees * bent)
    for degrees in (10.0, 15.0, 20.0, 24.0)
  ]


def test_errors_correlations_and_bends_are_those_that_were_planted():
  paths = {'model': paths_of(0.8, 0.1), 'real clips': paths_of(1.0)}
  record = compare_paths(paths).record['camera']
  squares = np.square(0.2 * np.array([10, 15, 20, 24])).mean()
  assert record['model']['error'] == pytest.approx(np.sqrt(squares))
  assert record['model']['correlation'] == pytest.approx(1)
  assert record['model']['bent'] == pytest.approx(0.1, abs=0.01)
  expected = {'clips': 4, 'error': 0, 'correlation': 1, 'bent': 0}
  assert record['real clips'] == pytest.approx(expected)


def test_the_path_of_a_real_pan_is_read():
  judge = make_judge(Solids(cameras=('pans left', 'pans right', 'circles left', 'circles right')))
  requests = judge.asks(40)['in distribution']
  videos = [clip['video'] for clip in judge.clips(requests)]
  paths = judge.paths(videos, requests)
  said = [
    request for request in requests if any(what == 'amount' for what, *_ in request.label.says)
  ]
  assert len(paths) == len(said) > 4
  assert compare_paths({'real clips': paths}).record['camera']['real clips']['correlation'] > 0.95
