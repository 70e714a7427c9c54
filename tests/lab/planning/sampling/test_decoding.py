"""Plans of decoding a clip: operations by hand, memory of the compiler, and what is refused."""

import json
import math

import pytest

from configs.digits import autoencoder as tae
from configs.wan import autoencoder
from mgjax.core.errors import ConfigError, DataError
from mgjax.core.settings import fields_of
from mgjax.lab.planning.dispatch import plan_any
from mgjax.models.tae.autoencoder import make_autoencoder
from mgjax.parallel.chips import GIB


def plan(topology='v5p:2x2x1', config=None, **options):
  config = config or autoencoder.get_config()
  return plan_any(config, topology, what='sample', **options)


def small():
  config = autoencoder.get_config()
  config.model.update(decoder_width=32, encoder_width=32, depth=1)
  return config


def test_a_clip_of_wan_is_decoded_in_a_quarter_of_a_petaflop():
  answer = plan(frames=81, size=(480, 832))
  numbers = answer.numbers
  assert json.loads(json.dumps(numbers)) == numbers and numbers['parameters'] == 126_892_531
  assert numbers['flops'] == pytest.approx(0.275e15, rel=0.01)
  seconds = numbers['seconds']
  assert seconds['ideal'] == numbers['flops'] / 459e12 < seconds['low'] < seconds['high']
  assert numbers['gib'] == {
    'weights': 4 * 126_892_531 / GIB,
    'latents': 4 * 16 * 21 * 60 * 104 / GIB,
  }
  assert 'fits' in answer.text and 'activations are not in it' in answer.text
  twice = plan(frames=81, size=(480, 832), rows=2).numbers
  assert twice['flops'] == 2 * numbers['flops']


@pytest.mark.parametrize(
  ('options', 'sentence'),
  [
    ({'frames': 81}, '--frames and --size say which clip is decoded'),
    ({'size': (480, 832)}, '--frames and --size say which clip is decoded'),
    ({'config': tae.get_config(), 'frames': 999, 'size': (64, 64)}, '999 frames are decoded in'),
    ({'remat': 'full'}, '--remat says nothing about sampling of the component .autoencoder.'),
  ],
)
def test_what_is_not_decoded_in_one_piece_is_a_sentence(options, sentence):
  with pytest.raises(ConfigError, match=sentence):
    plan(**options)
  with pytest.raises(DataError, match=r'^80 frames; expected'):
    plan(frames=80, size=(480, 832))


def test_the_paper_s_autoencoder_is_planned_as_well():
  numbers = plan(config=tae.get_config(), frames=8, size=(32, 32)).numbers
  model = make_autoencoder(fields_of(tae.get_config(), 'model'))
  assert numbers['shape'] == [8, 32, 32] and numbers['flops'] > 0
  assert numbers['gib']['latents'] * GIB == 4 * math.prod(model.latent_shape((8, 32, 32)))


@pytest.mark.tpu_aot
def test_the_compiled_decoder_has_the_memory_of_a_few_frames():
  pytest.importorskip('libtpu')
  numbers = plan(config=small(), how='compile', frames=81, size=(64, 64)).numbers
  program = numbers['programs']['the decoder']
  assert numbers['fits'] and numbers['peak_gib'] == program['peak_gib']
  # One array of all frames at the width of the finest level would be 0.04 GiB, and it has several.
  assert sum(numbers['gib'].values()) < numbers['peak_gib'] < 0.1
