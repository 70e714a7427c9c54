"""Plans of frozen encoders: bytes by formula, what the compiler says, and sentences."""

import json

import pytest

from configs.digits import video
from configs.text import byt5_large, metaclip_text, metaclip_vision, t5_base, ul2
from mgjax.core.errors import ConfigError
from mgjax.planning.text_encoder import describe_encoder, plan_encoder

UL2 = 8_721_797_632  # 32128 d + 32 (4 d g k + 3 d f + 2 d) + d + 32 g


def test_the_encoder_of_ul2_has_8_7b_parameters():
  d, f, width = 4096, 16384, 16 * 256
  assert 32128 * d + 32 * (4 * d * width + 3 * d * f + 2 * d) + d + 32 * 16 == UL2
  assert plan_encoder(ul2.get_config(), 'v5e:2x2', compiled=False)['parameters'] == UL2


def test_weights_lie_in_equal_pieces_and_in_their_type():
  answer = plan_encoder(ul2.get_config(), 'v5e:2x2', compiled=False)
  one, all_four = (answer['programs'][name]['weights_gib'] for name in ('one chip', '4 chips'))
  assert one == 2 * UL2 / 2**30
  assert all_four == pytest.approx(one / 4, rel=1e-3)  # the norms are whole everywhere
  assert [each['fits'] for each in answer['programs'].values()] == [False, True]
  config = ul2.get_config()
  config.keep_type = False
  exact = plan_encoder(config, 'v5p:2x2x1', compiled=False)
  assert exact['programs']['one chip']['weights_gib'] == 2 * one
  assert json.loads(json.dumps(exact)) == exact
  assert 'one chip' in describe_encoder(exact) and 'by formula' in describe_encoder(exact)


@pytest.mark.parametrize(('config', 'millions'), [
  (byt5_large, 864), (t5_base, 110), (metaclip_text, 354), (metaclip_vision, 632),
])  # fmt: skip
def test_others_have_the_sizes_of_their_names(config, millions):
  answer = plan_encoder(config.get_config(), 'v5e:2x2', compiled=False)
  assert answer['parameters'] == pytest.approx(millions * 1e6, rel=0.01)


def test_what_is_no_encoder_is_refused():
  with pytest.raises(ConfigError, match="of the component 'video'; expected t5"):
    plan_encoder(video.get_config(), 'v5e:2x2', compiled=False)
  pytest.importorskip('libtpu')
  config = ul2.get_config()
  config.rows = 6
  with pytest.raises(ConfigError, match=r'config\.rows = 6 prompts do not divide over 4 chips'):
    plan_encoder(config, 'v5e:2x2', compiled=True)


@pytest.mark.tpu_aot
def test_the_encoder_of_ul2_is_compiled_where_it_fits_and_refused_where_not():
  pytest.importorskip('libtpu')
  answer = plan_encoder(ul2.get_config(), 'v5e:2x2', compiled=True)
  one, all_four = answer['programs'].values()
  assert 'RESOURCE_EXHAUSTED' in one['refused'] and not one['fits']
  assert all_four['fits']
  assert all_four['weights_gib'] < all_four['peak_gib'] < 1.2 * all_four['weights_gib']
  assert 'does not fit RESOURCE_EXHAUSTED' in describe_encoder(answer)


@pytest.mark.tpu_aot
def test_the_encoder_of_ul2_fits_one_large_chip():
  pytest.importorskip('libtpu')
  answer = plan_encoder(ul2.get_config(), 'v5p:2x2x1', compiled=True)
  for program in answer['programs'].values():
    assert program['fits']
    assert program['weights_gib'] < program['peak_gib'] < 1.2 * program['weights_gib']


@pytest.mark.tpu_aot
def test_a_tower_of_images_compiles_for_one_chip_and_for_four():
  pytest.importorskip('libtpu')
  config = metaclip_vision.get_config()
  config.model.depth = 1
  answer = plan_encoder(config, 'v5e:2x2', compiled=True)
  assert answer['length'] == 1 + 16 * 16
  assert all(program['fits'] for program in answer['programs'].values())
