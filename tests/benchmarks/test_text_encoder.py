"""The bench of encoders: what it counts, and when it trusts a baseline."""

import json

import jax
import pytest

from configs.digits import video
from configs.text import metaclip_text, metaclip_vision, t5_base
from mgjax.benchmarks.report import describe_benchmark
from mgjax.benchmarks.text_encoder import measure_encoder
from mgjax.core.errors import ConfigError

SIZES = {'vocabulary': 20, 'dim': 16, 'depth': 2, 'heads': 2, 'head_size': 4, 'mlp_dim': 24}
BASELINE = """
import numpy as np
WHAT = ('encode',)
def make_programs(task):
  assert task['tokens'].shape == task['mask'].shape == (4, 6) and task['mask'].all()
  states = np.zeros((4, 6, 16), np.float32)
  return {'zeros': {'encode': lambda: states}}
"""


def tiny():
  config = t5_base.get_config()
  config.model.update(SIZES, dtype='float32')
  config.rows, config.length = 4, 6
  return config


def test_numbers_of_an_encoder():
  report = json.loads(json.dumps(measure_encoder(tiny(), rounds=2, devices=jax.devices()[:2])))
  assert report['mesh']['fsdp'] == 2 and report['prompts'] == [4, 6]
  numbers = report['programs']['mgjax']['encode']
  # Four maps, the two of the network, and scores with what they weigh; of both layers.
  token = 4 * 16 * 8 + 2 * 16 * 24 + 2 * 6 * 8
  assert numbers['flops'] == 2 * 2 * 24 * token
  assert numbers['tokens_per_second'] == pytest.approx(24 / numbers['median'])
  assert '4 x 6 tokens, float32' in describe_benchmark(report)


@pytest.mark.parametrize(
  'module', [metaclip_text, pytest.param(metaclip_vision, marks=pytest.mark.slow)]
)
def test_numbers_of_a_tower_of_clip(module):
  config = module.get_config()
  config.model.update(dim=16, depth=2, heads=2, mlp_dim=24, projection=8, dtype='float32')
  if config.component == 'clip_text':
    config.model.update(vocabulary=20, positions=9, eos=19)
    config.length = 9
  else:
    config.model.update(size=6, patch=2)
  config.rows = 4
  report = measure_encoder(config, rounds=2, devices=jax.devices()[:2])
  images = config.component == 'clip_vision'
  tokens = 4 * (1 + 9 if images else 9)
  assert report['prompts'] == [4, tokens // 4]
  token = 4 * 16 * 16 + 2 * 16 * 24 + 2 * tokens // 4 * 16
  whole = 4 * 16 * 8 + images * 4 * 9 * 12 * 16  # the vectors, and what patches go through
  flops = report['programs']['mgjax']['encode']['flops']
  assert flops == 2 * (2 * tokens * token + whole)


def test_a_baseline_with_other_states_is_not_timed(tmp_path):
  (tmp_path / 'baseline.py').write_text(BASELINE)
  report = measure_encoder(
    tiny(), baselines=[str(tmp_path / 'baseline.py')], rounds=1, devices=jax.devices()[:1]
  )
  assert 'away from ours' in report['failed']['zeros']
  assert list(report['programs']) == ['mgjax']


def test_what_cannot_be_timed_is_refused():
  config = tiny()
  config.rows = 3
  with pytest.raises(ConfigError, match=r'config\.rows = 3 do not divide over 8 groups'):
    measure_encoder(config)
  with pytest.raises(ConfigError, match="of the component 'video'; expected t5"):
    measure_encoder(video.get_config())
