"""Wan's files in and out of work directories: names, sizes, types, every bit."""

import json
import math
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

import mgjax
from configs.text import umt5_xxl
from configs.wan import autoencoder as autoencoder_config
from configs.wan import image_to_video, text_to_video
from mgjax.apps.weights.import_export import export_weights, import_weights
from mgjax.apps.weights.wan_folders import import_wan
from mgjax.apps.weights.wan_values import values_of
from mgjax.core.errors import ConfigError
from mgjax.core.safetensors_files import StoredTensor
from mgjax.models.foreign_weights.format import parameter_shapes
from mgjax.models.foreign_weights.names import import_tensors
from mgjax.models.tae import wan_names
from mgjax.models.tae.wan import decode
from mgjax.models.tae.wan_files.statistics import LATENTS
from mgjax.models.text.t5_weights import T5_FORMAT, t5_rows
from mgjax.models.wan import names
from mgjax.registry import weight_format
from mgjax.sections.autoencoder.pipeline import load_codec
from mgjax.sections.text.encoder import TextEncoder
from mgjax.training.checkpoints.load_params import load_params
from mgjax.training.checkpoints.workdir import read_notes
from tests import tiny_text, tiny_wan
from tests.models.text.test_t5_weights import tensors as t5_tensors
from tests.models.wan import import_memory
from tests.oracles import t5, wan_published
from tests.oracles import wan as oracle
from tests.tensors import assert_same, changed
from tests.torch_files import Storage, dumps, tensor, write

TORCH = {'float32': 'FloatStorage', 'float16': 'HalfStorage', 'bfloat16': 'BFloat16Storage'}


def drawn(model, layout='diffusers', dtype='float32'):
  """Tensors of an oracle by the names of a layout."""
  with np.load(oracle.VECTORS) as file:
    shapes = json.loads(str(file[f'{model}/shapes']))
  tensors = {name: oracle.draw(name, tuple(shape)).astype(dtype) for name, shape in shapes.items()}
  return tensors if layout == 'diffusers' else {to_original(n): t for n, t in tensors.items()}


def to_original(name):
  """The name in the original's layout of a tensor of diffusers' transformer."""
  for row in names.ROWS:
    for layer in range(3):
      theirs = [each.replace('{layer}', str(layer)) for each in row.names]
      if name == theirs[0]:
        return theirs[-1]
  raise KeyError(name)


def config_of(model='text_to_video', **more):
  fields = oracle.TRANSFORMERS[model] | {'text_dim': oracle.TEXT}
  config = text_to_video.get_config('debug')
  config.model.update(fields)
  config.model.conditionings.text.features = oracle.TEXT
  config.update(more)
  return config


def torch_file(path, tensors):
  """A file as torch.save writes it."""
  found, storages = {}, []
  for key, (name, array) in enumerate(tensors.items()):
    steps = [int(np.prod(array.shape[i + 1 :])) for i in range(array.ndim)]
    storage = Storage(TORCH[str(array.dtype)], key, array.size)
    found[name] = tensor(storage, 0, array.shape, tuple(steps))
    storages.append(array)
  return write(path, dumps(found), storages)


def shards(folder, tensors):
  """Two files with an index, as published."""
  folder.mkdir(exist_ok=True)
  where = {}
  for part, chosen in enumerate([[*tensors][::2], [*tensors][1::2]], 1):
    file = f'diffusion_pytorch_model-0000{part}-of-00002.safetensors'
    save_file({name: tensors[name] for name in chosen}, folder / file)
    where |= dict.fromkeys(chosen, file)
  index = folder / 'diffusion_pytorch_model.safetensors.index.json'
  index.write_text(json.dumps({'metadata': {}, 'weight_map': where}))
  return folder


def one_file(path, tensors):
  save_file(tensors, path)
  return path


def imported(source, workdir, **more):
  import_weights(config_of(**more), source, workdir)
  return load_params(workdir)


SOURCES = {
  'shards of diffusers': lambda path, dtype: shards(
    path / 'transformer', drawn('text_to_video', 'diffusers', dtype)
  ),
  'shards of the original': lambda path, dtype: shards(
    path / 'wan', drawn('text_to_video', 'original', dtype)
  ),
  'one file': lambda path, dtype: one_file(
    path / 'wan.safetensors', drawn('text_to_video', 'original', dtype)
  ),
  'one file with a prefix': lambda path, dtype: one_file(
    path / 'wan.safetensors',
    {
      f'model.diffusion_model.{name}': array
      for name, array in drawn('text_to_video', 'original', dtype).items()
    },
  ),
  'a file of PyTorch': lambda path, dtype: torch_file(
    path / 'wan.pth', drawn('text_to_video', 'original', dtype)
  ),
}


@pytest.mark.parametrize(
  ('source', 'dtype'),
  [*((source, 'bfloat16') for source in SOURCES), ('one file', 'float32'), ('one file', 'float16')],
)
def test_a_transformer_goes_through_bit_by_bit_in_both_layouts(source, dtype, tmp_path):
  keep = dtype != 'float32'
  params, meta = imported(SOURCES[source](tmp_path, dtype), tmp_path / 'run', keep_type=keep)
  assert {leaf.dtype.name for leaf in jax.tree.leaves(params['backbone'])} == {dtype}
  assert params['text']['null'].shape == (oracle.TEXT,)
  assert meta['notes']['latents'] == LATENTS[16].as_dict()
  for layout in ('diffusers', 'original'):
    export_weights(tmp_path / 'run', tmp_path / layout, layout)
    file = tmp_path / layout / 'diffusion_pytorch_model.safetensors'
    assert_same(load_file(file), drawn('text_to_video', layout, dtype))


def autoencoder_of(model='wan_2_1'):
  config = autoencoder_config.get_config()
  config.model.update(oracle.AUTOENCODERS[model])
  return config


@pytest.mark.parametrize('model', [*oracle.AUTOENCODERS])
def test_an_autoencoder_goes_through_bit_by_bit_in_both_layouts(model, tmp_path):
  channels = oracle.AUTOENCODERS[model]['latent_channels']
  statistics = {'latents_mean': [0.5] * channels, 'latents_std': [2.0] * channels}
  folder = tmp_path / 'vae'
  folder.mkdir()
  (folder / 'config.json').write_text(json.dumps(statistics))
  save_file(drawn(model), folder / 'diffusion_pytorch_model.safetensors')
  import_weights(autoencoder_of(model), folder, tmp_path / 'run')
  assert read_notes(tmp_path / 'run')['latents'] == {
    'mean': [0.5] * channels,
    'std': [2.0] * channels,
  }
  for layout in ('diffusers', 'original'):
    export_weights(tmp_path / 'run', tmp_path / layout, layout)
  written = load_file(tmp_path / 'diffusers/diffusion_pytorch_model.safetensors')
  assert_same(written, drawn(model))
  (file,) = (tmp_path / 'original').iterdir()
  original = load_file(file)
  assert len(original) == len(written) and 'conv2.weight' in original
  assert 'decoder.middle.1.to_qkv.weight' in original
  torch_file(tmp_path / 'Wan.pth', original)
  import_weights(autoencoder_of(model), tmp_path / 'Wan.pth', tmp_path / 'again')
  jax.tree.map(
    np.testing.assert_array_equal,
    load_params(tmp_path / 'run')[0],
    load_params(tmp_path / 'again')[0],
  )
  # Statistics are published for 16 and 48 channels.
  assert read_notes(tmp_path / 'again')['latents']['mean'] == [0.0] * channels


def test_float8_is_read_with_its_scales(tmp_path):
  tensors = drawn('text_to_video', 'original', 'float16')
  scaled = dict(tensors)
  expected = dict(tensors)
  for name, array in tensors.items():
    if name.startswith('blocks.') and array.ndim == 2:
      scale = np.float32(np.abs(array.astype(np.float32)).max() / 448)
      q = (array.astype(np.float32) / scale).astype(jnp.float8_e4m3fn)
      scaled |= {name: q, name.removesuffix('weight') + 'scale_weight': scale.reshape(1)}
      expected[name] = q.astype(np.float32) * scale
  marker = {'scaled_fp8': np.zeros(0, jnp.float8_e4m3fn)}
  file = {f'model.diffusion_model.{name}': array for name, array in (scaled | marker).items()}
  save_file(file, tmp_path / 'wan_fp8_scaled.safetensors')
  for keep, dtype in ((False, 'float32'), (True, 'bfloat16')):
    params, _ = imported(tmp_path / 'wan_fp8_scaled.safetensors', tmp_path / dtype, keep_type=keep)
    kernel = params['backbone']['layers']['self_attention']['query']['kernel']
    assert kernel.dtype == dtype
    for layer in range(3):
      name = f'blocks.{layer}.self_attn.q.weight'
      np.testing.assert_array_equal(kernel[layer].T, expected[name].astype(dtype))


@pytest.mark.parametrize(
  ('change', 'message'),
  [
    ({'blocks.1.ffn.2.weight': None}, r'1 missing \(blocks.1.ffn.net.2.weight\)'),
    ({'blocks.1.extra.weight': (2,)}, r'1 unknown \(blocks.1.extra.weight\)'),
    ({'blocks.1.ffn.2.weight': (48, 99)}, r'another shape \(blocks.1.ffn.2.weight \(48, 99\)\)'),
    (
      {'head.head.weight': None},
      r'no tensor proj_out.weight or head.head.weight of 2 axes among .*; give the weights',
    ),
    ({'patch_embedding.weight': (48, 36, 1, 2, 2)}, r'beside: 0 -> 20; .*image_to_video\.py'),
    ({'blocks.3.ffn.2.weight': (48, 100)}, 'of another Wan than .*depth: 3 -> 4; choose the conf'),
    ({'text_embedding.0.weight': (48, 4096)}, 'text_dim: 32 -> 4096; choose the configuration of'),
  ],
)
def test_files_of_another_model_are_refused(change, message, tmp_path):
  save_file(changed(drawn('text_to_video', 'original'), change), tmp_path / 'wan.safetensors')
  with pytest.raises(ConfigError, match=message):
    import_weights(config_of(), tmp_path / 'wan.safetensors', tmp_path / 'run')


def test_config_json_must_be_of_the_tensors_and_says_heads(tmp_path):
  folder = tmp_path / 'transformer'
  shards(folder, drawn('text_to_video'))
  said = {'num_layers': 3, 'num_attention_heads': 2, 'ffn_dim': 100, 'eps': 1e-6}
  (folder / 'config.json').write_text(json.dumps(said | {'num_layers': 4}))
  with pytest.raises(ConfigError, match=r'config\.json says depth = 4, the tensors 3; take both'):
    import_weights(config_of(), folder, tmp_path / 'run')
  (folder / 'config.json').write_text(json.dumps(said | {'num_attention_heads': 4}))
  with pytest.raises(ConfigError, match=r'of another Wan than .*heads: 2 -> 4'):
    import_weights(config_of(), folder, tmp_path / 'run')


def test_a_tensor_that_nobody_reads_is_left_out(tmp_path):
  more = {'blocks.0.attn2.norm_added_q.weight': np.ones(48, np.float32)}
  save_file(drawn('text_to_video') | more, tmp_path / 'wan.safetensors')
  _, meta = imported(tmp_path / 'wan.safetensors', tmp_path / 'run')
  assert len(meta['notes']['source']['types']) == len(drawn('text_to_video'))


@pytest.fixture(scope='module')
def runs(tmp_path_factory):
  """Runs of a small Wan: autoencoder/, umt5/ and its files in umt5_published/, video/."""
  return tiny_wan.make_runs(tmp_path_factory.mktemp('runs'))


def published(runs, folder, layout):
  """All parts in one folder, as they are published."""
  parts = {'video': 'transformer', 'autoencoder': 'vae'}
  for run, part in parts.items():
    export_weights(runs / run, folder / part, layout)
  if layout == 'original':
    for part in parts.values():
      for file in (folder / part).glob('*.safetensors'):
        file.rename(folder / file.name)
      shutil.rmtree(folder / part)
  shutil.copytree(runs / 'umt5_published', folder / 'text_encoder')
  return folder


def import_folder(runs, folder, workdir, **more):
  config = tiny_wan.video(runs, **more)
  autoencoder = autoencoder_config.get_config()
  autoencoder.model.update(tiny_wan.AUTOENCODER)
  text = tiny_text.encoder_config()
  import_wan(config, folder, workdir, autoencoder=autoencoder, text=text)
  return load_params(workdir)


@pytest.mark.usefixtures('on_one_device')
@pytest.mark.parametrize('layout', ['diffusers', 'original'])
def test_a_folder_becomes_a_run_with_its_parts_inside(layout, runs, tmp_path, caplog):
  folder = published(runs, tmp_path / 'given', layout)
  params, meta = import_folder(runs, folder, tmp_path / 'run')
  assert not [record for record in caplog.records if 'there is no' in record.getMessage()]
  expected, _ = load_params(runs / 'video')
  jax.tree.map(np.testing.assert_array_equal, params['backbone'], expected['backbone'])
  (states,) = TextEncoder(runs / 'umt5')([''])
  np.testing.assert_array_equal(params['text']['null'], states['states'][0])
  assert meta['notes']['latents'] == read_notes(tmp_path / 'run/autoencoder')['latents']
  moved = (tmp_path / 'run').rename(tmp_path / 'moved')  # inside it is found wherever it lies
  shutil.rmtree(folder)
  (clip,) = mgjax.load(moved)(['a cat'])
  assert clip.shape == (5, 16, 32, 3)
  values = {(value.part, value.quantity): value for value in values_of(moved)}
  assert len(values) == 6 and all(value.recorded is None for value in values.values())
  latents = np.random.RandomState(0).standard_normal((1, 2, 8, 8, 4)).astype(np.float32)
  codec = load_codec(runs / 'autoencoder')
  norm = np.sqrt(np.mean(np.square(decode(codec.model, codec.params, jnp.asarray(latents)))))
  assert float(values['autoencoder', 'norm of clip'].value) == pytest.approx(norm, rel=1e-4)


def test_parts_that_are_missing_are_named(runs, tmp_path, caplog):
  folder = published(runs, tmp_path / 'given', 'diffusers')
  shutil.rmtree(folder / 'text_encoder')
  shutil.rmtree(folder / 'vae')
  params, _ = import_folder(runs, folder, tmp_path / 'run')
  assert not np.any(params['text']['null'])
  assert 'there is no autoencoder and no text encoder: import it into' in caplog.text
  assert 'the states of the empty prompt are zeros' in caplog.text


def test_nothing_is_imported_if_the_transformer_is_another(runs, tmp_path):
  folder = published(runs, tmp_path / 'given', 'diffusers')
  with pytest.raises(ConfigError, match='of another Wan'):
    import_folder(runs, folder, tmp_path / 'run', model__depth=3)
  assert not (tmp_path / 'run').exists()


@pytest.mark.slow
def test_an_import_holds_little_more_than_the_model():
  sizes = [import_memory.measure(size) for size in (100_000_000, 500_000_000)]
  for measured in sizes:
    assert measured['peak'] <= 1.1 * measured['bytes'] + 1e9
  (small, large) = sizes
  assert large['peak'] - small['peak'] <= 1.1 * (large['bytes'] - small['bytes'])


class Fits(Exception):
  """Every tensor has its place; the first one is about to be read."""


def never_read():
  raise Fits


# Bytes of the published file, and of a number in it.
PUBLISHED = {
  '1.3b': (825, 5_676_250_000, 4),
  '14b': (1_095, 28_577_339_084, 2),
  'image_14b': (1_303, None, 2),
  'image_both_ends': (1_304, None, 2),
  'image_a14b': (1_095, None, 2),
  'image_5b': (825, None, 4),
  '2.1': (194, 507_609_880, 4),
  '2.2': (196, None, 4),
}


PARAMETERS = {
  'image_14b': 16_394_878_784,
  'image_both_ends': 16_394_878_784 + 514 * 1280,
  'image_a14b': 14_288_901_184,
  'image_5b': 4_999_787_712,
}


@pytest.mark.parametrize('model', PUBLISHED)
def test_published_models_fit_by_name_shape_and_bytes(model):
  shapes = wan_published.read()[model]
  count, size, itemsize = PUBLISHED[model]
  assert len(shapes) == count
  numbers = sum(math.prod(shape) for shape in shapes.values())
  assert numbers == PARAMETERS.get(model, numbers)
  # A name, a shape and a checksum take some hundred bytes of a file.
  assert size is None or 0 < size - itemsize * numbers < 500 * count
  is_transformer = model in wan_published.TRANSFORMERS
  module = text_to_video if is_transformer else autoencoder_config
  if pictures := model.startswith('image_'):
    module, model = image_to_video, model.removeprefix('image_')
  config = module.get_config(model)
  weights = weight_format(config)
  fields = config.model.to_dict()
  channels = fields.get('channels_out', 16)
  params = parameter_shapes(weights, fields, {'latents': LATENTS[channels].as_dict()})
  text = params.pop('text', None)
  assert (text is not None) == is_transformer
  tower = params.pop('picture', {})
  assert bool(tower) == (pictures and model in ('14b', 'both_ends'))
  assert sum(leaf.size for leaf in jax.tree.leaves(params)) == numbers
  rows = names.ROWS if is_transformer else wan_names.autoencoder_rows(weights.make(fields))
  tensors = {
    name: StoredTensor(shape, np.dtype('float32'), never_read) for name, shape in shapes.items()
  }
  with pytest.raises(Fits):
    import_tensors(rows, tensors, params.get('backbone', params), expected='those published')


def test_umt5_has_the_published_size_and_both_names(tmp_path):
  fields = umt5_xxl.get_config().model.to_dict()
  shapes = parameter_shapes(T5_FORMAT, fields, {})
  numbers = sum(leaf.size for leaf in jax.tree.leaves(shapes))
  assert numbers == 5_680_910_336 and 0 < 11_361_920_418 - 2 * numbers < 500 * 242
  config = umt5_xxl.get_config()
  config.model.update(t5.MODELS['umt5'])
  config.tokenizer = 'bytes'
  tensors = t5_tensors('umt5', jnp.bfloat16)
  original = {}
  for row in t5_rows(fields):
    for layer in range(9):
      theirs = [name.replace('{layer}', str(layer)) for name in row.names]
      if known := [name for name in theirs if name in tensors]:
        original[theirs[-1]] = tensors[known[0]]
  assert 'blocks.0.ffn.gate.0.weight' in original and 'token_embedding.weight' in original
  torch_file(tmp_path / 'models_t5_umt5-xxl-enc-bf16.pth', original)
  import_weights(config, tmp_path / 'models_t5_umt5-xxl-enc-bf16.pth', tmp_path / 'original')
  save_file(tensors, tmp_path / 'model.safetensors')
  import_weights(config, tmp_path / 'model.safetensors', tmp_path / 'run')
  params, others = (load_params(tmp_path / run)[0] for run in ('run', 'original'))
  jax.tree.map(np.testing.assert_array_equal, params, others)
  assert 'position_bias' in params['layers']
