"""Plans by forward passes: operations of a trace, weights in pieces, and sentences."""

import json

import jax
import jax.numpy as jnp
import pytest

from configs.audio import codec
from configs.digits import autoencoder, clip
from configs.text import byt5_large, metaclip_text, metaclip_vision, t5_base, ul2
from mgjax.core.errors import ConfigError
from mgjax.lab.planning.dispatch import plan_any
from mgjax.lab.planning.forward import count_products
from mgjax.parallel.chips import parse_topology

UL2 = 8_721_797_632  # 32128 d + 32 (4 d g k + 3 d f + 2 d) + d + 32 g


def test_products_are_counted_in_strides_loops_and_branches():
  def function(x, kernel, matrix, flag):
    y = jax.lax.conv_general_dilated(
      x, kernel, (2, 2), ((0, 1), (0, 1)), dimension_numbers=('NHWC', 'HWIO', 'NHWC')
    )
    z, _ = jax.lax.scan(lambda z, _: (jax.jit(jnp.dot)(z, matrix), None), matrix, length=3)
    return y, jax.lax.cond(flag, lambda: z @ matrix, lambda: z)

  shapes = [jax.ShapeDtypeStruct(shape, jnp.float32) for shape in ((1, 4, 6, 5), (3, 3, 5, 7))]
  matrix, flag = jax.ShapeDtypeStruct((2, 2), jnp.float32), jax.ShapeDtypeStruct((), bool)
  convolution, product = 2 * (2 * 3) * 9 * 5 * 7, 2 * 2**3
  assert count_products(function, *shapes, matrix, flag) == convolution + 4 * product


def test_the_encoder_of_ul2_has_8_7b_parameters_in_equal_pieces_and_in_their_type():
  d, f, width = 4096, 16384, 16 * 256
  assert 32128 * d + 32 * (4 * d * width + 3 * d * f + 2 * d) + d + 32 * 16 == UL2
  answer = plan_any(ul2.get_config(), 'v5e:2x2')
  numbers = json.loads(json.dumps(answer.numbers))
  assert numbers == answer.numbers and numbers['parameters'] == UL2
  one, all_four = numbers['gib'].values()
  assert one == 2 * UL2 / 2**30
  assert all_four == pytest.approx(one / 4, rel=1e-3)  # the norms are whole everywhere
  assert numbers['fits'] == {'one chip': False, '4 chips': True}
  # Two operations a parameter and token but for the table, and scores.
  tokens = 8 * 512
  flops = 2 * tokens * 32 * (4 * d * width + 3 * d * f) + 32 * 4 * tokens * 512 * width
  assert 8 * numbers['flops_of_a_row']['encode'] == pytest.approx(flops, rel=1e-3)
  config = ul2.get_config()
  config.keep_type = False
  assert plan_any(config, 'v5p:2x2x1').numbers['gib']['one chip'] == 2 * one
  assert 'one chip' in answer.text and 'does not fit' in answer.text


@pytest.mark.parametrize(
  ('config', 'millions'),
  [
    (byt5_large, 864),
    (t5_base, 110),
    (metaclip_text, 354),
    (metaclip_vision, 632),
  ],
)
def test_others_have_the_sizes_of_their_names(config, millions):
  numbers = plan_any(config.get_config(), 'v5e:2x2').numbers
  assert numbers['parameters'] == pytest.approx(millions * 1e6, rel=0.01)


@pytest.mark.parametrize('config', [autoencoder, pytest.param(codec, marks=pytest.mark.slow)])
def test_a_training_step_is_three_times_its_passes(config):
  answer = plan_any(config.get_config(), 'v5e:2x2', rows=8)
  numbers, chip = answer.numbers, parse_topology('v5e:2x2').chip
  assert set(numbers['flops_of_a_row']) == {'encode', 'decode'}
  operations = 3 * 8 * sum(numbers['flops_of_a_row'].values())
  assert numbers['ideal_seconds'] == pytest.approx(operations / (4 * chip.flops))
  seconds = numbers['seconds']
  assert numbers['ideal_seconds'] < seconds['low'] < seconds['high']
  twice = plan_any(config.get_config(), 'v5e:2x2', rows=16).numbers
  assert twice['ideal_seconds'] == pytest.approx(2 * numbers['ideal_seconds'])
  assert twice['gib'] == numbers['gib']
  assert 'a training step of 8 rows' in answer.text and 'assumed' in answer.text


@pytest.mark.parametrize(
  ('config', 'options', 'sentence'),
  [
    (autoencoder, {'rows': 6}, '^6 rows do not divide over the 4 groups'),
    (autoencoder, {'how': 'search'}, '^of an autoencoder a plan is by formula'),
    (ul2, {'how': 'compile'}, 'a plan is by formula, .* leave --search, --compile'),
    (ul2, {'mesh': {'fsdp': 3}}, 'has 3 devices'),
    (autoencoder, {'what': 'dream'}, "what = 'dream'; expected one of train, sample"),
    (autoencoder, {'frames': 5}, 'of what is sampled; add --what=sample'),
    (clip, {}, "'clip' is a contrastive; expected a configuration of one of"),
  ],
)
def test_what_cannot_be_planned_is_a_sentence(config, options, sentence):
  with pytest.raises(ConfigError, match=sentence):
    plan_any(config.get_config(), 'v5e:2x2', **options)
