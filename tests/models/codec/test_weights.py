"""Published weights in and out: every name accounted for, every bit kept, both forms."""

import functools
import json

import jax
import numpy as np
import pytest
from safetensors.numpy import save_file

from configs.audio import codec
from mgjax.core.errors import ConfigError
from mgjax.core.tree import named_leaves
from mgjax.models.codec.model import Codec
from mgjax.models.codec.weights import (
  CODEC_FORMAT,
  export_published,
  import_published,
  import_transformers,
  published_fields,
  published_layers,
  transformers_fields,
  transformers_layers,
  transformers_side,
)
from tests.models.codec.shapes import shapes
from tests.oracles import codec as oracle
from tests.tensors import assert_same

CODEC = Codec(width=2, strides=(2, 4), latent_channels=3, decoder_width=8)
# Of the watermark, as published: the ELU convolutions of a decoder level, and its own model.
OF_A_LEVEL = ['3.weight', '3.bias', '11.weight', '11.bias'] + [
  f'{place}.block.{layer}.{kind}'
  for place in (6, 7)
  for layer in (1, 3)
  for kind in ('weight', 'bias')
]
OF_THE_MODEL = [
  'msg_processor.msg_processor.weight',
  *(f'encoder_block.{name}.{kind}' for name in ('pre.3', 'post.2') for kind in ('weight', 'bias')),
  *(f'decoder_block.{name}.{kind}' for name in ('pre.0', 'post.1') for kind in ('weight', 'bias')),
  *(
    f'{block}.lstm.{side}_{kind}_l{layer}'
    for block in ('encoder_block.post.0', 'decoder_block.pre.1')
    for side in ('weight', 'bias')
    for kind in ('ih', 'hh')
    for layer in (0, 1)
  ),
]


@functools.cache
def drawn():
  """Published tensors, drawn by name."""
  zeros = jax.tree.map(lambda leaf: np.zeros(leaf.shape, np.float32), shapes(CODEC))
  return {name: oracle.draw(name, tensor.shape) for name, tensor in export_published(zeros).items()}


def folded(tensors):
  """The same tensors as they are without weight norm."""
  plain = {name: t for name, t in tensors.items() if not name.endswith(('_g', '_v'))}
  for name, v in tensors.items():
    if name.endswith('_v'):
      norm = np.sqrt(np.square(v.astype(np.float64)).sum((1, 2), keepdims=True))
      g = tensors[f'{name[:-2]}_g']
      plain[name[:-2]] = (g * (v / norm)).astype(np.float32)
  return plain


def watermark(levels=2):
  names = [f'decoder.model.{level + 1}.block.{n}' for level in range(levels) for n in OF_A_LEVEL]
  names += [f'decoder.wm_model.{name}' for name in OF_THE_MODEL]
  return {name: np.ones(3, np.float32) for name in names}


@pytest.mark.parametrize('number', ['10', '1000000000', '9' * 5000])
def test_a_level_of_a_great_number_makes_no_great_model(number):
  more = {f'encoder.block.{number}.block.4.bias': np.ones(1, np.float32)}
  assert published_fields(drawn() | more) == published_fields(drawn())


@pytest.mark.parametrize('shape', [(2**20, 1, 1), (2**20, 1, 0), (2**40, 1, 0)])
def test_one_tensor_that_claims_a_great_width_makes_nothing(shape, tmp_path):
  side = {'conv1.weight': shape, 'conv1.bias': (1,), 'block.0.snake1.alpha': (1,)}
  side |= {'block.0.conv1.weight': (1, 1, 4)}
  tensors = {name: np.ones(each, np.float32) for name, each in side.items()}
  save_file(tensors, tmp_path / 'a.safetensors')
  fields = codec.get_config().model.to_dict()
  with pytest.raises(ConfigError, match=r'do not make this model|is empty and of shape'):
    assert CODEC_FORMAT.read is not None
    CODEC_FORMAT.read(fields, tmp_path / 'a.safetensors', seed=0, keep_type=False)


def test_names_are_those_that_pytorch_gives_the_published_layers():
  with np.load(oracle.VECTORS) as file:
    published = str(file['published/shapes'])
  codec = Codec(**oracle.MODELS['published'])
  zeros = jax.tree.map(lambda leaf: np.zeros(leaf.shape, np.float32), shapes(codec))
  exported = {name: list(tensor.shape) for name, tensor in export_published(zeros).items()}
  assert exported == json.loads(published)


def test_the_watermark_is_left_out_and_counted():
  params, skipped = import_published(drawn() | watermark(), shapes(CODEC))
  assert skipped == 2 * 12 + 25
  expected, none = import_published(drawn(), shapes(CODEC))
  assert none == 0
  assert_same(named_leaves(params), named_leaves(expected))


def effective(params):
  """Every weight as it is used, by the name of its layer."""
  leaves, weights = named_leaves(params), {}
  for name, scale in leaves.items():
    if name.endswith('/scale'):
      layer = name.removesuffix('/scale')
      v = leaves[f'{layer}/kernel'].astype(np.float64)
      axis = 1 if layer.endswith('_up') else 2
      others = tuple({0, 1, 2} - {axis})
      unit = v / np.sqrt((v**2).sum(others, keepdims=True))
      weights[layer] = unit * np.expand_dims(scale, others)
  return weights


def test_folded_weights_are_the_same_weights():
  params, _ = import_published(folded(drawn()), shapes(CODEC))
  expected = effective(import_published(drawn(), shapes(CODEC))[0])
  for name, weight in effective(params).items():
    np.testing.assert_allclose(weight, expected[name], rtol=1e-6, atol=1e-8)


def test_a_folded_row_of_zeros_stays_zero():
  tensors = folded(drawn())
  name = 'encoder.block.0.weight'
  tensors[name] = tensors[name].copy()
  tensors[name][1] = 0
  weight = effective(import_published(tensors, shapes(CODEC))[0])['encoder/conv_in']
  np.testing.assert_array_equal(weight[:, :, 1], 0)
  assert np.isfinite(weight).all()


def of_transformers(side):
  """The drawn tensors of a side by the names of transformers."""
  ours, theirs = published_layers(2), transformers_layers(2, side)
  back = {published: theirs[layer] for layer, published in ours.items() if layer in theirs}
  tensors = {}
  for name, tensor in folded(drawn()).items():
    layer, _, kind = name.rpartition('.')
    if layer in back:
      tensors[f'{back[layer]}.{kind}'] = tensor
  return tensors


@pytest.mark.parametrize('side', ['encoder', 'decoder'])
def test_one_side_comes_from_transformers_and_the_other_stays(side):
  kept = jax.tree.map(lambda leaf: np.full(leaf.shape, 7, np.float32), shapes(CODEC))
  params = import_transformers(of_transformers(side), kept, side)
  expected, _ = import_published(folded(drawn()), shapes(CODEC))
  mixed = {
    name: leaf if name.startswith(side) else np.full(leaf.shape, 7, np.float32)
    for name, leaf in named_leaves(expected).items()
  }
  assert_same(named_leaves(params), mixed)


@pytest.mark.parametrize('form', [lambda tensors: tensors, folded])
def test_sizes_are_read_from_the_tensors(form):
  assert Codec(**published_fields(form(drawn()))) == CODEC
  with pytest.raises(ConfigError, match=r'no weight of encoder\.block\.0 among the tensors'):
    published_fields({})


@pytest.mark.parametrize('side', ['encoder', 'decoder'])
def test_sizes_of_a_side_are_read_from_the_tensors(side):
  tensors = of_transformers(side)
  assert transformers_side(tensors) == side
  assert transformers_side(drawn()) is None
  fields = transformers_fields(tensors, side)
  assert CODEC.clone(**fields) == CODEC
  assert fields.keys() >= {'channels', 'width', 'strides'}
