"""Every parameter of every size: name, shape, logical axes and where a mesh of 2 x 2 x 2 puts it.

A change of this is a change of every checkpoint. When it is meant, write the files anew with
MGJAX_UPDATE_GOLDEN=1 python -m pytest tests/golden
and let the difference be reviewed.
"""

import functools
import math
import os
import pathlib
import re

import flax.linen as nn
import jax
import jax.numpy as jnp
import pytest

from configs.audio import codec as audio_codec
from configs.audio import sizes as audio_sizes
from configs.editing import editing
from configs.personalization import personalization
from configs.tae import tae
from configs.text import byt5_large, metaclip_text, metaclip_vision, t5_base, ul2
from configs.upsampler import image_autoencoder
from configs.video import t2i_256, t2i_1024, t2iv_256, t2iv_768
from configs.video.sizes import SIZES
from mgjax.core.axes import LOGICAL_AXES
from mgjax.core.errors import ConfigError
from mgjax.core.tree import count_parameters, named_leaves
from mgjax.lab.planning.forward import make_encoder
from mgjax.models.codec.model import Codec, make_codec
from mgjax.models.flow_model.build import make_flow_model
from mgjax.models.flow_model.conditions import small_inputs
from mgjax.models.tae.autoencoder import make_autoencoder
from mgjax.parallel.mesh import make_mesh
from mgjax.parallel.rules import partition
from mgjax.parallel.shard import parameter_shardings
from tests.models.codec.shapes import boxed_shapes

HERE = pathlib.Path(__file__).parent
CHANNELS = 16
ENCODERS = {
  'ul2': ul2,
  'byt5_large': byt5_large,
  't5_base': t5_base,
  'metaclip_text': metaclip_text,
  'metaclip_vision': metaclip_vision,
}
READING = '30b,encoders'  # of text, frozen ones
AUDIO = tuple(f'audio_{size}' for size in (*audio_sizes.SIZES, '13b,encoders'))
DIT = '5b,dit'  # the block of the report's other arm
AUTOENCODERS = {'tae': tae, 'image_autoencoder': image_autoencoder}
PERSONALIZATION = 'personalization_30b'
EDITING = 'editing_30b'
NAMES = (*SIZES, READING, DIT, PERSONALIZATION, EDITING, *AUDIO, *ENCODERS, *AUTOENCODERS, 'codec')


@functools.cache
def parameters(name):
  """Returns the abstract parameters with their axes, made as training makes them."""
  if name in AUTOENCODERS:
    model = make_autoencoder(AUTOENCODERS[name].get_config().model.to_dict())
    inputs = (jnp.zeros((1, 9, 64, 64, 3)), jax.random.key(0))
  elif name == 'codec':
    return boxed_shapes(make_codec(audio_codec.get_config().model.to_dict()))
  elif name in ENCODERS:
    model, inputs = make_encoder(ENCODERS[name].get_config())
  elif name.startswith('audio_'):
    model = make_flow_model(audio_sizes.fields(name.removeprefix('audio_'), 750))
    inputs = small_inputs(model, Codec.latent_channels)
  else:
    made = {PERSONALIZATION: (personalization, '30b,identity'), EDITING: (editing, '30b,images')}
    module, words = made.get(name, (t2iv_768, name))
    model = make_flow_model(module.get_config(words).model.to_dict())
    inputs = small_inputs(model, CHANNELS)
  return jax.eval_shape(model.init, jax.random.key(0), *inputs)['params']


def boxes(name):
  """Maps each parameter's name to its box of shape and axes."""
  is_box = lambda leaf: isinstance(leaf, nn.LogicallyPartitioned)  # noqa: E731
  leaves, _ = jax.tree_util.tree_flatten_with_path(parameters(name), is_leaf=is_box)
  names = named_leaves(nn.unbox(parameters(name)))
  return dict(zip(names, [leaf for _, leaf in leaves], strict=True))


@pytest.mark.parametrize('name', NAMES)
def test_parameters_are_the_golden_ones(name):
  mesh = make_mesh({'fsdp': 2, 'context': 2, 'tensor': 2})
  lines = []
  for path, box in boxes(name).items():
    assert set(box.names) <= LOGICAL_AXES.keys() and len(box.names) == len(box.value.shape), path
    assert box.value.dtype == jnp.float32, f'{path} is {box.value.dtype}'
    spec = partition(box.names, box.value.shape, mesh)
    columns = (path, box.value.shape, ' '.join(box.names), tuple(spec))
    lines.append('  '.join(str(column) for column in columns))
  text = '\n'.join([*lines, f'total  {count_parameters(parameters(name)):,}']) + '\n'
  file = HERE / f'parameters_{name.replace(",", "_")}.txt'
  if os.environ.get('MGJAX_UPDATE_GOLDEN'):
    file.write_text(text)
  assert text == file.read_text(), f'{file.name} differs; see the docstring of {__name__}'


def test_every_parameter_is_declared_with_axes():
  """What the sizes above do not use cannot lack axes either: one function declares parameters."""
  library = HERE.parent.parent / 'mgjax'
  bare = re.compile(
    r'\.param\(|\bnn\.(Dense|DenseGeneral|Conv|Embed|LayerNorm|RMSNorm|GroupNorm)\b'
  )
  found = {
    path.relative_to(library).as_posix()
    for path in library.rglob('*.py')
    if bare.search(path.read_text())
  }
  # A judge has less than a million parameters and is no part of a model.
  assert found == {'nn/linear.py', 'lab/worlds/solids/judges/network.py'}


@pytest.mark.parametrize('name', NAMES)
def test_every_large_parameter_is_sharded(name):
  """Under fsdp nothing above a million numbers is left whole on every device."""
  shardings = named_leaves(parameter_shardings(parameters(name), make_mesh({'fsdp': 8})))
  for path, box in boxes(name).items():
    assert box.value.size < 1e6 or 'fsdp' in shardings[path].spec, path


def test_the_30b_model_is_30b():
  total = count_parameters(parameters('30b'))
  blocks = count_parameters(parameters('30b')['backbone']['layers'])
  weights = 48 * (8 * 6144**2 + 3 * 6144 * 16384)
  assert weights == pytest.approx(28.99e9, abs=0.005e9)
  # Beside its matrices a layer has three norms and the six vectors of its modulation.
  assert blocks == weights + 48 * (3 + 6) * 6144
  assert total == pytest.approx(29.3e9, abs=0.2e9)


def test_an_editor_has_one_shape_in_all_stages_and_the_video_model_in_it():
  stages = [editing.get_config(f'30b,{name}').model.to_dict() for name in editing.STEPS]
  assert all(stage == stages[0] for stage in stages)
  ours, plain = (named_leaves(nn.unbox(parameters(name))) for name in (EDITING, '30b'))
  assert {name: ours[name].shape for name in plain} == {n: leaf.shape for n, leaf in plain.items()}


def test_the_dit_of_the_ablation_differs_from_the_llama_block_in_norms_and_biases_alone():
  ours, dit = (set(named_leaves(nn.unbox(parameters(name)))) for name in ('5b', DIT))
  biases = {
    f'{layer}/{name}/bias'
    for layer, names in {
      'self_attention': ('query', 'key', 'value', 'out'),
      'cross_attention': ('query', 'key', 'value', 'out'),
      'feed_forward': ('up', 'down'),
    }.items()
    for name in names
  }
  layers = 'backbone/layers/'
  assert dit - ours == {f'{layers}{name}' for name in biases}
  norms = {f'{layers}{name}_norm/scale' for name in ('self', 'cross', 'feed')}
  assert ours - dit == {*norms, f'{layers}feed_forward/gate/kernel', 'backbone/norm/scale'}
  blocks = [count_parameters(parameters(name)['backbone']['layers']) for name in ('5b', DIT)]
  # Two matrices of 4 d are three of 8 d / 3.
  assert blocks[1] - blocks[0] == 32 * ((9 + 4) * 3072 - 3 * 3072)


def test_the_13b_audio_model_has_12_2b_in_its_blocks():
  blocks = count_parameters(parameters('audio_13b')['backbone']['layers'])
  weights = 36 * (8 * 4608**2 + 2 * 4608 * 18432)
  assert weights == pytest.approx(12.2e9, abs=0.05e9)
  # Beside them a layer has nine biases of width d, one of the FFN, and its modulation's six.
  assert blocks == weights + 36 * ((9 + 6) * 4608 + 18432)


@pytest.mark.parametrize(('size', 'billions'), [('300m', 0.3), ('3b', 3), ('9b', 9)])
def test_audio_blocks_are_what_their_size_says(size, billions):
  blocks = count_parameters(parameters(f'audio_{size}')['backbone']['layers'])
  assert blocks == pytest.approx(billions * 1e9, rel=0.05)


@pytest.mark.parametrize('size', SIZES)
def test_stages_differ_in_position_tables_alone(size):
  stages = (t2i_256, t2iv_256, t2iv_768, t2i_1024)
  configs = [stage.get_config(size) for stage in stages] + [t2i_1024.quality_tuning(size)]
  models = [config.model.to_dict() for config in configs]
  lengths = [model.pop('positions') for model in models]
  assert all(model == models[0] for model in models)
  assert lengths == [(1, 16, 16), (32, 32, 32), (32, 96, 96), (32, 128, 128), (32, 128, 128)]
  # The last time by as much as the sides of images, 768 to 1024 px.
  assert [tables[1] for tables in lengths[:-1]] == [16, 2 * 16, 3 * 2 * 16, 4 * 3 * 2 * 16 // 3]


@pytest.mark.parametrize('stage', [t2i_256, t2iv_256, t2iv_768, t2i_1024])
def test_every_bucket_fits_the_position_tables(stage):
  config = stage.get_config('debug')
  autoencoder = image_autoencoder if stage is t2i_1024 else tae
  codec = make_autoencoder(autoencoder.get_config().model.to_dict())
  for name, shape in config.buckets.items():
    *sizes, channels = codec.latent_shape((shape.frames, shape.height, shape.width))
    assert shape.height % 16 == shape.width % 16 == 0, name
    patches = (sizes[0], sizes[1] // 2, sizes[2] // 2)
    assert all(n <= most for n, most in zip(patches, config.model.positions, strict=True)), name
    assert channels == CHANNELS
    most = {t2iv_768: 73_728, t2i_1024: 64 * 64}.get(stage, math.inf)
    assert math.prod(patches) <= most, name


def test_tuning_is_reached_by_its_word_and_is_of_the_same_shapes():
  before, tuning = (t2i_1024.get_config(f'debug,encoders{word}') for word in ('', ',tuning'))
  assert tuning.to_dict() == t2i_1024.quality_tuning('debug,encoders').to_dict()
  assert tuning.model.to_dict() == before.model.to_dict()
  shapes = [
    {name: (each.frames, each.height, each.width) for name, each in config.buckets.items()}
    for config in (before, tuning)
  ]
  assert shapes[0] == shapes[1] and len(shapes[0]) == 5
  assert tuning.train.steps < before.train.steps
  with pytest.raises(ConfigError, match=r"there is no 'tunning'; expected a size, .* and tuning"):
    t2i_1024.get_config('7b,tunning')


@pytest.mark.parametrize('stage', [t2iv_256, t2iv_768])
def test_ten_videos_come_to_one_image(stage):
  weights = {1: 0, 10: 0}
  for shape in stage.get_config('debug').buckets.values():
    weights[1 if shape.frames == 1 else 10] += shape.weight
  assert weights[10] == 10 * weights[1]
