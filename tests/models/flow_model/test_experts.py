"""Two runs share the path of a sample, each on its side of a flow time."""

import numpy as np
import pytest

from mgjax.api import load, train
from mgjax.core.errors import ConfigError
from tests import tiny

pytestmark = pytest.mark.usefixtures('on_one_device')

SINCE = 0.1  # of three steps the last one starts later


def test_a_run_is_sampled_with_the_expert_of_another(tiny_runs, tmp_path):
  """Two runs go on from one, each with its times; the pipeline asks each for its steps."""
  where = tmp_path / 'late'
  config = tiny.video(tiny_runs, start_from=str(tiny_runs / 'video'), objective__time__mean=0.0)
  config.objective.time.low = SINCE
  train(config, where, stop_at=3)
  run = tiny_runs / 'video'
  alone, other = load(run).generate(['a red 3'], seed=0), load(where).generate(['a red 3'], seed=0)
  shared = load(run, expert=f'{where}@{SINCE}')
  together = shared.generate(['a red 3'], seed=0)
  assert not np.array_equal(together, alone)
  assert not np.array_equal(together, other)
  assert shared.provenance['settings']['expert'] == f'{where}@{SINCE}'
  np.testing.assert_array_equal(
    load(run, expert=f'{run}@{SINCE}').generate(['a red 3'], seed=0), alone
  )


def test_an_expert_of_another_model_or_without_a_time_is_refused(tiny_runs, tmp_path):
  with pytest.raises(ConfigError, match="'runs/late'; expected directory@time"):
    load(tiny_runs / 'video', expert='runs/late')
  config = tiny.video(tiny_runs, model__depth=2, model__unroll=1)
  train(config, tmp_path, stop_at=0)
  with pytest.raises(ConfigError, match='is another model: depth: 2 -> 1'):
    load(tiny_runs / 'video', expert=f'{tmp_path}@0.4')
