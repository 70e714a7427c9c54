"""Adapters of Wan in all published forms change its weights as the sum of both in float64 does."""

import json

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from mgjax.core.errors import ConfigError
from mgjax.core.tree import named_leaves
from mgjax.models.conditioning.ports import Ports
from mgjax.models.foreign_weights.names import import_tensors
from mgjax.models.wan import names
from mgjax.models.wan.transformer import WanTransformer
from mgjax.nn.lora import Lora, attach, init, joined, merge, shift
from mgjax.sections.flow.lora_files import AboutAdapters, read_adapters, write_adapters
from tests.oracles import wan as oracle

MODEL = 'text_to_video'
FIELDS = oracle.TRANSFORMERS[MODEL]
DEPTH, DIM = FIELDS['depth'], FIELDS['dim']
WITHIN = 1e-5
RANK = 4
# Maps by the names of the original code and of diffusers, in the layers and beside them.
LAYER_MAPS = {
  **{
    f'{ours}.{original}': f'{theirs}.{diffusers}'
    for ours, theirs in (('self_attn', 'attn1'), ('cross_attn', 'attn2'))
    for original, diffusers in (('q', 'to_q'), ('k', 'to_k'), ('v', 'to_v'), ('o', 'to_out.0'))
  },
  'ffn.0': 'ffn.net.0.proj',
  'ffn.2': 'ffn.net.2',
}
LAYER_NORMS = {
  'norm3': 'norm2',
  **{
    f'{ours}.norm_{name}': f'{theirs}.norm_{name}'
    for ours, theirs in (('self_attn', 'attn1'), ('cross_attn', 'attn2'))
    for name in 'qk'
  },
}
OUTER_MAPS = {
  'time_projection.1': 'condition_embedder.time_proj',
  'time_embedding.0': 'condition_embedder.time_embedder.linear_1',
  'time_embedding.2': 'condition_embedder.time_embedder.linear_2',
  'text_embedding.0': 'condition_embedder.text_embedder.linear_1',
  'text_embedding.2': 'condition_embedder.text_embedder.linear_2',
  'head.head': 'proj_out',
}


def in_layers(modules):
  return {
    f'blocks.{layer}.{original}': f'blocks.{layer}.{diffusers}'
    for layer in range(DEPTH)
    for original, diffusers in modules.items()
  }


MAPS = in_layers(LAYER_MAPS)
NORMS = in_layers(LAYER_NORMS)
TABLES = {f'blocks.{layer}': f'blocks.{layer}.scale_shift_table' for layer in range(DEPTH)}
TABLES['head'] = 'scale_shift_table'
PATCH = 'patch_embedding'


class File:
  """The tensors of a file of adapters, and the differences that they mean, by diffusers' names."""

  def __init__(self, shapes):
    self.tensors, self.changes = {}, {}
    self.shapes = shapes
    self._numbers = np.random.default_rng(0)

  def _draw(self, *shape):
    return (self._numbers.standard_normal(shape) / 10).astype(np.float32)

  def add_maps(self, maps, form, ends=('lora_A.weight', 'lora_B.weight'), alpha=None):
    """Adds A and B of maps: `form` makes the name in the file of both names of a map."""
    for original, diffusers in maps.items():
      out, *inputs = self.shapes[f'{diffusers}.weight']
      a, b = self._draw(RANK, *inputs), self._draw(out, RANK, *[1] * (len(inputs) - 1))
      key = form(original, diffusers)
      self.tensors |= {f'{key}.{end}': tensor for end, tensor in zip(ends, (a, b), strict=True)}
      if alpha is not None:
        self.tensors[f'{key}.alpha'] = np.array(alpha, np.float32)
      change = np.tensordot(b.reshape(out, RANK).astype(np.float64), a, 1)
      self._change(f'{diffusers}.weight', change * (1 if alpha is None else alpha / RANK))

  def add_difference(self, key, name):
    difference = self.tensors[key] = self._draw(*self.shapes[name])
    self._change(name, difference)

  def _change(self, name, change):
    self.changes[name] = self.changes.get(name, 0) + np.float64(change)


def underscored(original, _):
  return 'lora_unet_' + original.replace('.', '_')


def of_comfyui(file):
  file.add_maps(MAPS, lambda original, _: f'diffusion_model.{original}')


def of_lightx2v(file):
  ends = 'lora_down.weight', 'lora_up.weight'
  file.add_maps(MAPS, lambda original, _: f'diffusion_model.{original}', ends, alpha=8)


def of_musubi(file):
  file.add_maps(MAPS, underscored, ('lora_down.weight', 'lora_up.weight'), alpha=1)


def of_diffusers(file):
  file.add_maps(MAPS, lambda _, diffusers: f'transformer.{diffusers}')


def of_causvid(file):
  maps = MAPS | OUTER_MAPS
  file.add_maps(maps, lambda original, _: f'diffusion_model.{original}')
  for original, diffusers in maps.items():
    file.add_difference(f'diffusion_model.{original}.diff_b', f'{diffusers}.bias')


def of_rank_64(file):
  ends = 'lora_down.weight', 'lora_up.weight'
  file.add_maps(MAPS | OUTER_MAPS, lambda original, _: f'diffusion_model.{original}', ends)
  for original, diffusers in NORMS.items():
    file.add_difference(f'diffusion_model.{original}.diff', f'{diffusers}.weight')
    if f'{diffusers}.bias' in file.shapes:
      file.add_difference(f'diffusion_model.{original}.diff_b', f'{diffusers}.bias')
  file.add_difference(f'diffusion_model.{PATCH}.diff', f'{PATCH}.weight')
  file.add_difference(f'diffusion_model.{PATCH}.diff_b', f'{PATCH}.bias')
  for original, diffusers in TABLES.items():
    file.add_difference(f'diffusion_model.{original}.diff_m', diffusers)


def of_original(file):
  file.add_maps(MAPS | {PATCH: PATCH}, lambda original, _: original)
  for original, diffusers in TABLES.items():
    file.add_difference(f'{original}.modulation.diff', diffusers)


FORMS = [*(of_comfyui, of_lightx2v, of_musubi, of_diffusers, of_causvid, of_rank_64, of_original)]


@pytest.fixture(scope='module')
def model():
  return WanTransformer(text_dim=oracle.TEXT, **FIELDS)


@pytest.fixture(scope='module')
def inputs():
  latents, text = (jnp.asarray(array) for array in oracle.draw_inputs(MODEL))
  return latents, jnp.array(oracle.TIMES, jnp.float32), Ports(context=text)


@pytest.fixture(scope='module')
def tensors():
  with np.load(oracle.VECTORS) as file:
    shapes = json.loads(str(file[f'{MODEL}/shapes']))
  return {name: oracle.draw(name, tuple(shape)) for name, shape in shapes.items()}


@pytest.fixture(scope='module')
def boxed(model, inputs):
  return jax.eval_shape(model.init, jax.random.key(0), *inputs)['params']


@pytest.fixture(scope='module')
def imported(boxed):
  def read(tensors):
    return import_tensors(names.ROWS, tensors, nn.unbox(boxed), expected='of an oracle')[0]

  return read


@pytest.fixture(scope='module')
def velocity(model, inputs):
  apply = jax.jit(model.apply)
  return lambda params: np.asarray(apply({'params': params}, *inputs))


@pytest.mark.parametrize('strength', [1.0, 0.6])
@pytest.mark.parametrize('form', FORMS)
def test_every_form_changes_weights_as_their_sum_does(
  form, strength, tensors, imported, velocity, tmp_path
):
  file = File({name: tensor.shape for name, tensor in tensors.items()})
  form(file)
  save_file(file.tensors, tmp_path / 'style.safetensors')
  changed = {
    name: np.float64(tensor) + strength * file.changes.get(name, 0)
    for name, tensor in tensors.items()
  }
  wanted = velocity(imported(changed))
  params = imported(tensors)
  read = read_adapters(tmp_path / 'style.safetensors', params, names.ROWS)
  adapters = joined([(read, strength)])
  scale = np.abs(wanted).max()
  for found in (merge(adapters, params), attach(adapters, shift(adapters, params))):
    np.testing.assert_allclose(velocity(found), wanted, rtol=0, atol=WITHIN * scale)
  assert np.abs(wanted - velocity(params)).max() > 0.01 * scale


def test_maps_for_a_picture_are_left_out_of_a_model_without_one(
  tensors, imported, tmp_path, caplog
):
  file = File({name: tensor.shape for name, tensor in tensors.items()})
  of_comfyui(file)
  path, plain = tmp_path / 'style.safetensors', dict(file.tensors)
  save_file(plain, path)
  params = imported(tensors)
  wanted = read_adapters(path, params, names.ROWS)
  assert not caplog.records
  layer = 'diffusion_model.blocks.1.cross_attn'
  image = {
    f'{layer}.k_img.lora_A.weight': np.ones((RANK, DIM), np.float32),
    f'{layer}.k_img.lora_B.weight': np.ones((DIM, RANK), np.float32),
    f'{layer}.v_img.diff_b': np.ones(DIM, np.float32),
    f'{layer}.norm_k_img.diff': np.ones(DIM, np.float32),
    'diffusion_model.img_emb.proj.1.lora_A.weight': np.ones((RANK, 1280), np.float32),
    'lora_unet_blocks_0_cross_attn_k_img.alpha': np.array(1, np.float32),
  }
  save_file(plain | image, path)
  found = read_adapters(path, params, names.ROWS)
  jax.tree.map(np.testing.assert_array_equal, found, wanted)
  (record,) = caplog.records
  assert f'left out {len(image)} of {len(plain) + len(image)} tensors' in record.getMessage()
  assert 'cross_attn.k_img' in record.getMessage()
  save_file(image, path)
  with pytest.raises(ConfigError, match=f'of another model: {len(image)} of its'):
    read_adapters(path, params, names.ROWS)


@pytest.mark.parametrize('width', [32, 64])
def test_adapters_of_another_size_are_refused_by_both_widths(width, tensors, imported, tmp_path):
  """Also those with more layers, whose keys would not fit either."""
  file = File({name: tensor.shape for name, tensor in tensors.items()})
  name = 'diffusion_model.blocks.{}.self_attn.q.lora_{}.weight'
  shapes = {'A': (RANK, width), 'B': (width, RANK)}
  for layer in range(2 * DEPTH):
    file.tensors |= {
      name.format(layer, role): np.ones(shape, np.float32) for role, shape in shapes.items()
    }
  save_file(file.tensors, tmp_path / 'style.safetensors')
  with pytest.raises(ConfigError, match=rf'A \(4, {width}\) .* kernel here is \({DIM}, {DIM}\)'):
    read_adapters(tmp_path / 'style.safetensors', imported(tensors), names.ROWS)


@pytest.mark.parametrize(
  ('key', 'shape'),
  [
    ('blocks.0.norm3.diff', (DIM + 1,)),
    ('blocks.0.diff_m', (6, DIM)),
    ('patch_embedding.diff', (DIM, 16, 2, 2)),
    ('blocks.0.self_attn.q.diff_b', (1, DIM)),
  ],
)
def test_differences_of_another_shape_are_refused(key, shape, tensors, imported, tmp_path):
  save_file({f'diffusion_model.{key}': np.ones(shape, np.float32)}, tmp_path / 'a.safetensors')
  with pytest.raises(ConfigError, match=rf'{key} is of shape .*, and \S+ here is') as caught:
    read_adapters(tmp_path / 'a.safetensors', imported(tensors), names.ROWS)
  assert str(shape) in str(caught.value)


@pytest.mark.parametrize(
  'key', ['blocks.9.norm3.diff', 'blocks.0.norm1.diff', 'blocks.0.norm3.diff_m', 'head.diff_b']
)
def test_differences_of_what_the_model_lacks_are_refused(key, tensors, imported, tmp_path):
  save_file({f'diffusion_model.{key}': np.ones(DIM, np.float32)}, tmp_path / 'a.safetensors')
  with pytest.raises(ConfigError, match=rf'1 of its 1 keys do not fit, as diffusion_model\.{key}'):
    read_adapters(tmp_path / 'a.safetensors', imported(tensors), names.ROWS)


def test_a_difference_by_two_names_is_refused(tensors, imported, tmp_path):
  table = np.ones((1, 6, DIM), np.float32)
  keys = 'blocks.0.diff_m', 'blocks.0.modulation.diff'
  save_file(dict.fromkeys(keys, table), tmp_path / 'a.safetensors')
  with pytest.raises(ConfigError, match=r'twice, as blocks\.0\.\S+ and as blocks\.0'):
    read_adapters(tmp_path / 'a.safetensors', imported(tensors), names.ROWS)


WRITTEN = {  # form -> a key of a map in a layer, and of one beside them
  'peft': (
    'base_model.model.blocks.1.attn1.to_out.0.lora_A.weight',
    'base_model.model.condition_embedder.text_embedder.linear_1.lora_A.weight',
  ),
  'comfyui': (
    'diffusion_model.blocks.1.self_attn.o.lora_A.weight',
    'diffusion_model.text_embedding.0.lora_A.weight',
  ),
  'kohya': (
    'lora_unet_blocks_1_self_attn_o.lora_down.weight',
    'lora_unet_text_embedding_0.lora_down.weight',
  ),
}


@pytest.mark.parametrize('form', WRITTEN)
def test_what_is_written_is_read_back(form, boxed, tensors, imported, tmp_path):
  """All kernels, among them that of patches, whose tensor has five axes."""
  settings = Lora(rank=3, alpha=3.0)
  adapters = nn.unbox(init(jax.random.key(0), settings, boxed))
  random = np.random.default_rng(0)
  adapters = jax.tree.map(lambda leaf: random.normal(size=leaf.shape).astype('f4'), adapters)
  out = tmp_path / ('folder' if form == 'peft' else 'style.safetensors')
  about = AboutAdapters('video', 'runs/wan', 'style')
  write_adapters(out, adapters, settings, form, about, names.ROWS)
  written = load_file(out / 'adapter_model.safetensors' if form == 'peft' else out)
  assert {written[key].shape for key in WRITTEN[form]} == {(3, DIM), (3, oracle.TEXT)}
  patch = next(key for key in written if 'patch_embedding' in key and ('A' in key or 'down' in key))
  assert written[patch].shape == (3, FIELDS['channels_out'], 1, 2, 2)
  found = read_adapters(out, imported(tensors), names.ROWS)
  leaves = named_leaves(adapters)
  assert named_leaves(found).keys() == leaves.keys()
  for name, leaf in named_leaves(found).items():
    np.testing.assert_array_equal(leaf, leaves[name], err_msg=name)
