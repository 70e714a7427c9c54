"""Adapters of Wan by diffusers' own conversions: what is written means the same there."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import load_file

from mgjax.models.conditioning.ports import Ports
from mgjax.models.foreign_weights.names import import_tensors
from mgjax.models.wan import names
from mgjax.models.wan.transformer import WanTransformer
from mgjax.nn.lora import Lora, attach, init
from mgjax.sections.flow.lora_files import AboutAdapters, read_adapters, write_adapters
from tests.oracles import wan as oracle

torch = pytest.importorskip('torch', reason='the twin needs torch: pip install -e .[oracle]')
conversions = pytest.importorskip('diffusers.loaders.lora_conversion_utils')

pytestmark = pytest.mark.oracle

MODEL = 'text_to_video'
WITHIN = 1e-5
CONVERT = {
  'comfyui': conversions._convert_non_diffusers_wan_lora_to_diffusers,
  'kohya': conversions._convert_musubi_wan_lora_to_diffusers,
}
SETTINGS = Lora(rank=3, alpha=6.0, targets=('layers/*',))


@pytest.fixture(scope='module')
def wan():
  """Diffusers' transformer, ours with its weights, and adapters of all maps of layers."""
  module = oracle.make_transformer(oracle.TRANSFORMERS[MODEL])
  model = WanTransformer(text_dim=oracle.TEXT, **oracle.TRANSFORMERS[MODEL])
  latents, text = oracle.draw_inputs(MODEL)
  times = jnp.array(oracle.TIMES, jnp.float32)
  inputs = jnp.asarray(latents), times, Ports(context=jnp.asarray(text))
  boxed = jax.eval_shape(model.init, jax.random.key(0), *inputs)['params']
  tensors = {name: tensor.numpy() for name, tensor in module.state_dict().items()}
  params, _ = import_tensors(names.ROWS, tensors, nn.unbox(boxed), expected='of diffusers')
  adapters = nn.unbox(init(jax.random.key(0), SETTINGS, boxed))
  random = np.random.default_rng(0)
  adapters = jax.tree.map(lambda leaf: random.normal(size=leaf.shape).astype('f4') / 9, adapters)
  return module, model, inputs, params, adapters


def merged(module, changes):
  """Returns diffusers' transformer in float64 with W + B A in place of W."""
  other = oracle.make_transformer(oracle.TRANSFORMERS[MODEL]).double()
  tensors = {name: tensor.double() for name, tensor in module.state_dict().items()}
  for name, tensor in changes.items():
    if name.endswith('.lora_B.weight'):
      a = changes[name.replace('lora_B', 'lora_A')]
      key = name.removeprefix('transformer.').replace('.lora_B', '')
      tensors[key] = tensors[key] + tensor.double() @ a.double()
  other.load_state_dict(tensors)
  return other.eval()


@pytest.mark.parametrize('form', CONVERT)
def test_what_is_written_is_read_by_diffusers_alike(wan, form, tmp_path):
  module, model, inputs, params, adapters = wan
  path = tmp_path / 'style.safetensors'
  about = AboutAdapters('video', 'runs/wan', 'style')
  write_adapters(path, adapters, SETTINGS, form, about, names.ROWS)
  tensors = {name: torch.tensor(tensor) for name, tensor in load_file(path).items()}
  changes = CONVERT[form](tensors)
  write_adapters(tmp_path / 'peft', adapters, SETTINGS, 'peft', about, names.ROWS)
  peft = load_file(tmp_path / 'peft' / 'adapter_model.safetensors')
  assert {name.replace('base_model.model.', 'transformer.') for name in peft} == changes.keys()
  latents, text = oracle.draw_inputs(MODEL)
  wanted = oracle.answer(merged(module, changes), latents, text)
  for read in (adapters, read_adapters(path, params, names.ROWS)):
    scale = SETTINGS.scale if read is adapters else 1
    found = model.apply({'params': attach(read, params, scale)}, *inputs)
    np.testing.assert_allclose(found, wanted, rtol=0, atol=WITHIN * np.abs(wanted).max())
  plain = model.apply({'params': params}, *inputs)
  assert np.abs(plain - wanted).max() > 1000 * WITHIN * np.abs(wanted).max()
