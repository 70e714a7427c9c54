"""Inflation of image autoencoders: the answers of diffusers' model, every name, every bad file."""

import functools
import json

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest
from safetensors.numpy import save_file

from mgjax.core.errors import ConfigError
from mgjax.core.tree import named_leaves
from mgjax.models.tae.autoencoder import Autoencoder
from mgjax.models.tae.inflate import deflate, image_layers, inflate, read_image_autoencoder
from mgjax.models.tae.latents import Statistics
from mgjax.nn.conv import centred
from tests.oracles import image_autoencoder as oracle
from tests.random_parameters import random_parameters
from tests.tensors import assert_same

EPS = np.finfo(np.float32).eps
# Two dozen convolutions in a row, of at most 9 x 16 terms, between norms: their roundings, of
# either sign, add up as a random walk. A norm's epsilon of 1e-5 instead of 1e-6 would be seen.
TOLERANCE = (24 * 9 * 16) ** 0.5 * EPS
ANSWERS = ('mean', 'log_variance', 'latents', 'decoded')
NEW_TO_OLD = {'to_q': 'query', 'to_k': 'key', 'to_v': 'value', 'to_out.0': 'proj_attn'}


@functools.cache
def vectors(name):
  """What diffusers' model answered, and its config and the shapes of its tensors."""
  with np.load(oracle.VECTORS) as file:
    found = {key.split('/')[1]: file[key] for key in file if key.startswith(f'{name}/')}
  return found | json.loads(str(found.pop('about')))


def tensors_of(name):
  return {key: oracle.draw(key, tuple(shape)) for key, shape in vectors(name)['shapes'].items()}


def write_folder(folder, name, tensors=None, **changes):
  """Writes a model as diffusers does."""
  folder.mkdir(exist_ok=True)
  config = {key: value for key, value in vectors(name)['config'].items() if key not in changes}
  config |= {key: value for key, value in changes.items() if value is not ...}
  (folder / 'config.json').write_text(json.dumps(config))
  path = folder / 'diffusion_pytorch_model.safetensors'
  save_file(tensors_of(name) if tensors is None else tensors, path)
  return folder


@functools.cache
def untrained(model):
  """Parameters whose temporal layers are as initialised, drawn without compiling anything."""
  frames = jnp.zeros((1, *model.compression, 3))
  params = random_parameters(model.init, frames, jax.random.key(0))

  def start(path, leaf):
    *_, layer, kind = (entry.key for entry in path)
    if layer == 'temporal' and kind == 'kernel':
      return np.asarray(centred(None, leaf.shape, leaf.dtype))
    return 0 * leaf if layer in ('temporal', 'temporal_out') else leaf

  return jax.tree_util.tree_map_with_path(start, params)


@functools.cache
def inflated(name, time):
  """The video model made from the image model, with strides of `time` frames."""
  fields = read_fields(name)
  strides = tuple((time, 2, 2) for _ in fields['strides'])
  model = Autoencoder(**fields | {'strides': strides})
  return model, inflate(tensors_of(name), untrained(model))


@functools.cache
def read_fields(name):
  """The fields of the model, spelt out."""
  config = vectors(name)['config']
  return {
    'latent_channels': config['latent_channels'],
    'widths': tuple(config['block_out_channels']),
    'strides': ((2, 2, 2),) * (len(config['block_out_channels']) - 1),
    'blocks': config['layers_per_block'],
    'groups': config['norm_num_groups'],
    'patch': (1, 1, 1),
    'quant_convolutions': config['use_quant_conv'],
  }


def answers(model, params, frames, latents):
  """Encodes frames (t h w 3) as one video and decodes latents (t h w c)."""

  @jax.jit
  def both(params, video, latents):
    posterior = model.apply({'params': params}, video, method='encode')
    return posterior, model.apply({'params': params}, latents, method='decode')

  posterior, decoded = both(params, jnp.asarray(frames[None]), jnp.asarray(latents[None]))
  found = {'mean': posterior.mean, 'log_variance': posterior.log_variance, 'decoded': decoded}
  return {key: np.asarray(array[0]) for key, array in found.items()}


def check_answers(found, exact):
  for key, array in found.items():
    np.testing.assert_allclose(
      array, exact[key], atol=TOLERANCE * np.abs(exact[key]).max(), err_msg=key
    )


def test_before_time_is_compressed_a_video_is_its_images():
  found = answers(*inflated('quant', 1), oracle.draw_images(), vectors('quant')['latents'])
  assert found['decoded'].shape == (3, 16, 24, 3)
  check_answers(found, vectors('quant'))


@pytest.mark.parametrize('name', oracle.MODELS)
def test_an_image_is_what_the_image_model_makes_of_it(name):
  exact = {key: array[:1] for key, array in vectors(name).items() if key in ANSWERS}
  found = answers(*inflated(name, 2), oracle.draw_images()[:1], exact['latents'])
  # One latent frame stands for several: all of them are the image.
  assert found['decoded'].shape[0] == inflated(name, 2)[0].compression[0] > 1
  for frame in found['decoded']:
    check_answers(found | {'decoded': frame[None]}, exact)


@pytest.mark.parametrize('name', oracle.MODELS)
def test_out_of_a_video_model_comes_every_bit_of_the_image_model(name):
  tensors, left_out = deflate(inflated(name, 2)[1])
  assert_same(tensors, tensors_of(name))
  assert left_out and all(left_out.values())
  assert all('/temporal' in key for key in left_out)


def test_temporal_parameters_stay_as_they_are():
  model, params = inflated('quant', 2)
  before, after = named_leaves(untrained(model)), named_leaves(params)
  for key, leaf in after.items():
    assert np.array_equal(leaf, before[key]) == ('/temporal' in key), key


def test_temporal_layers_that_learnt_something_are_said():
  _, params = inflated('quant', 2)
  changed = jax.tree.map(np.copy, params)
  changed['encoder']['conv_in']['temporal']['bias'][3] = 1e-30
  changed['encoder']['level_0_down']['temporal']['kernel'][0, 1, 2] = 1e-30
  changed['decoder']['middle_attention']['temporal_out']['kernel'][1, 1] = 1e-30
  changed['encoder']['middle_attention']['temporal_query']['kernel'][1, 1] = 5.0  # still into zero
  tensors, left_out = deflate(changed)
  learnt = {key for key, neutral in left_out.items() if not neutral}
  attention = {key for key in left_out if key.startswith('decoder/middle_attention/')}
  conv = {'encoder/conv_in/temporal/bias', 'encoder/level_0_down/temporal/kernel'}
  assert len(attention) == 10 and learnt == attention | conv
  assert tensors.keys() == tensors_of('quant').keys()


def renamed(tensors, square=False):
  """Gives attention its old names, and its matrices as 1 x 1 convolutions."""
  old = {}
  for key, tensor in tensors.items():
    if '.attentions.' in key:
      if square and tensor.ndim == 2:
        tensor = tensor[:, :, None, None]
      for new, before in NEW_TO_OLD.items():
        key = key.replace(f'.{new}.', f'.{before}.')
    old[key] = tensor
  return old


@pytest.mark.parametrize('square', [False, True])
def test_old_names_of_attention_are_the_new_ones(square):
  model, params = inflated('quant', 2)
  tensors = renamed(tensors_of('quant'), square)
  assert sum('.proj_attn.' in key for key in tensors) == 4
  again = inflate(tensors, untrained(model))
  jax.tree.map(np.testing.assert_array_equal, again, params)


def test_half_precision_is_read_as_it_is():
  model, _ = inflated('quant', 2)
  for dtype in (np.float16, ml_dtypes.bfloat16):
    half = {key: tensor.astype(dtype) for key, tensor in tensors_of('quant').items()}
    tensors, _ = deflate(inflate(half, untrained(model)))
    for key, tensor in tensors.items():
      assert tensor.dtype == np.float32
      np.testing.assert_array_equal(tensor, half[key].astype(np.float32), err_msg=key)


def test_every_layer_has_one_name():
  layers = image_layers(levels=4, blocks=2)
  assert len(set(layers.values())) == len(layers)
  assert layers['decoder/level_0_block_2/shortcut'] == 'decoder.up_blocks.3.resnets.2.conv_shortcut'
  assert layers['decoder/level_2_up/conv/spatial'] == 'decoder.up_blocks.0.upsamplers.0.conv'


@pytest.mark.parametrize(
  'fields', [{'patch': (1, 4, 4)}, {'strides': ((2, 1, 1),)}, {'strides': ((1, 2, 2), (2, 1, 1))}]
)
def test_a_model_of_another_shape_holds_no_image_model(fields):
  model = Autoencoder(**read_fields('quant') | fields)
  with pytest.raises(ConfigError, match=r'expected|take one stride fewer than widths'):
    deflate(untrained(model))


@pytest.mark.parametrize('name', oracle.MODELS)
def test_a_folder_tells_everything(name, tmp_path):
  fields, tensors, statistics = read_image_autoencoder(write_folder(tmp_path / 'vae', name))
  assert fields == read_fields(name)
  jax.tree.map(np.testing.assert_array_equal, tensors, tensors_of(name))
  config = vectors(name)['config']
  shift = config['shift_factor'] or 0.0
  # (z - mean) / std of ours is diffusers' (z - shift) * scaling.
  assert statistics.mean == (shift,) * config['latent_channels']
  assert statistics.std == (1 / config['scaling_factor'],) * config['latent_channels']


def write_wide(path):
  """Writes 'plain' with four times its widths, so that they divide into 32 groups; all zeros."""
  wide = {
    key: np.zeros([4 * size if size in (8, 16) else size for size in tensor.shape], np.float32)
    for key, tensor in tensors_of('plain').items()
  }
  save_file(wide, path)


def test_a_file_alone_tells_all_but_groups_and_statistics(tmp_path):
  write_wide(tmp_path / 'a.safetensors')
  fields, _, statistics = read_image_autoencoder(tmp_path / 'a.safetensors')
  assert fields == read_fields('plain') | {'widths': (32, 32, 64), 'groups': 32}
  assert statistics is None


def test_a_variant_is_found_where_there_is_no_other(tmp_path):
  folder = write_folder(tmp_path / 'vae', 'quant')
  path = folder / 'diffusion_pytorch_model.safetensors'
  half = {key: tensor.astype(np.float16) for key, tensor in tensors_of('quant').items()}
  save_file(half, folder / 'diffusion_pytorch_model.fp16.safetensors')
  assert read_image_autoencoder(folder).tensors['quant_conv.bias'].dtype == np.float32
  path.unlink()
  assert read_image_autoencoder(folder).tensors['quant_conv.bias'].dtype == np.float16


@pytest.mark.parametrize(
  ('changes', 'expected'),
  [
    ({'scaling_factor': ..., 'shift_factor': ...}, Statistics((0.0,) * 4, (1 / 0.18215,) * 4)),
    (
      {'scaling_factor': 0.5, 'latents_mean': [1, 2, 3, 4], 'latents_std': [2, 3, 4, 5]},
      Statistics((1.0, 2.0, 3.0, 4.0), (4.0, 6.0, 8.0, 10.0)),
    ),
  ],
)
def test_statistics_are_those_of_the_pipelines(changes, expected, tmp_path):
  assert read_image_autoencoder(write_folder(tmp_path, 'quant', **changes)).statistics == expected


def other(**changes):
  return lambda folder: write_folder(folder, 'quant', **changes)


@pytest.mark.oracle
@pytest.mark.parametrize('blocks', [1, 2])
@pytest.mark.parametrize('quant', [True, False])
def test_it_answers_what_diffusers_answers_live(blocks, quant, tmp_path):
  pytest.importorskip('diffusers')
  twin = oracle.make_model(
    block_out_channels=(8, 16, 16, 16),
    layers_per_block=blocks,
    latent_channels=16,
    use_quant_conv=quant,
    use_post_quant_conv=quant,
  )
  twin.float().save_pretrained(tmp_path / 'vae')
  fields, tensors, _ = read_image_autoencoder(tmp_path / 'vae')
  model = Autoencoder(**fields)
  exact = oracle.answers(twin.double(), images := oracle.draw_images()[:1])
  found = answers(model, inflate(tensors, untrained(model)), images, exact['latents'])
  check_answers(found | {'decoded': found['decoded'][:1]}, exact)
