"""Plans of autoencoders, codecs and of encoding, held to numbers that were counted by hand."""

import math

import pytest

from configs.audio import codec
from configs.digits import autoencoder as small
from mgjax.core.errors import ConfigError
from mgjax.parallel.chips import parse_topology
from mgjax.planning.dispatch import plan_any


def test_a_step_is_planned_by_formula():
  answer = plan_any(small.get_config(), 'v5e:2x2', rows=8)
  numbers, chip = answer.numbers, parse_topology('v5e:2x2').chip
  operations = sum(numbers['flops_per_sample'].values())
  assert set(numbers['flops_per_sample']) <= {'autoencoder', 'discriminators'}
  assert numbers['ideal_seconds'] == numbers['rows'] * operations / (4 * chip.flops)
  step = numbers['step_seconds']
  assert numbers['ideal_seconds'] < step['low'] < step['high']
  assert numbers['mfu']['high'] == pytest.approx(numbers['ideal_seconds'] / step['low'])
  assert numbers['mfu']['high'] <= 0.75
  for words in ('parameters', 'FLOP a sample', 'at most', 'nowhere measured', 'assumed'):
    assert words in answer.text


def test_twice_the_rows_are_twice_the_work_and_the_same_state():
  one, two = (plan_any(small.get_config(), 'v5p:2x2x1', rows=n).numbers for n in (8, 16))
  assert two['ideal_seconds'] == 2 * one['ideal_seconds']
  assert two['state_gib'] == one['state_gib']
  assert two['communication_seconds'] == one['communication_seconds']


@pytest.mark.slow
def test_a_codec_has_a_plan_that_says_what_float32_costs():
  config = codec.get_config()
  config.model.update(width=4, decoder_width=64)
  answer = plan_any(config, 'v5e:2x2')
  assert answer.numbers['flops_per_sample']['discriminators'] > 0
  assert config.model.dtype == 'float32' and 'peak of bfloat16' in answer.text
  config.model.dtype = 'bfloat16'
  assert 'peak of bfloat16' not in plan_any(config, 'v5e:2x2').text
  with pytest.raises(ConfigError, match='of a codec there is nothing to compile'):
    plan_any(codec.get_config(), 'v5e:2x2', how='compile')


def test_clips_are_encoded_in_days_and_bytes():
  config, size = small.get_config(), (64, 64)
  options = {'what': 'encode', 'clips': 1000, 'frames': 48, 'size': size}
  numbers = plan_any(config, 'v5e:4x4', **options).numbers
  assert numbers['bytes'] == 1000 * math.prod(numbers['latents']) * 2
  assert numbers['clips_per_second']['low'] * numbers['days']['high'] * 86_400 == pytest.approx(
    1000
  )
  assert numbers['chip_days']['low'] == pytest.approx(16 * numbers['days']['low'])
  whole = plan_any(config, 'v5e:4x4', **(options | {'frames': 96})).numbers
  assert whole['bytes'] == 2 * numbers['bytes']
  assert plan_any(config, 'v5e:4x4', **(options | {'clips': 2000})).numbers['days'] == {
    end: pytest.approx(2 * value) for end, value in numbers['days'].items()
  }


@pytest.mark.parametrize(
  ('options', 'sentence'),
  [
    ({'rows': 6}, r'^6 rows do not divide over the 4 groups'),
    ({'what': 'encode'}, r'^--what=encode is planned by formula, of an autoencoder; .*--clips'),
    ({'clips': 5}, r'^--clips are what is encoded; add --what=encode$'),
    ({'how': 'search'}, r'^of an autoencoder there is nothing to search'),
  ],
)
def test_what_cannot_be_planned_is_a_sentence(options, sentence):
  with pytest.raises(ConfigError, match=sentence):
    plan_any(small.get_config(), 'v5e:2x2', **options)
