"""Adapters of a CLIP by peft's and diffusers' own code: out, in, and the same answers."""

import re

import jax
import numpy as np
import pytest
from safetensors.numpy import load_file

import mgjax
from configs.digits import clip as clip_config
from mgjax.apps.weights.import_export import export_weights, import_weights
from mgjax.core.precision import BASE
from mgjax.core.settings import fields_of
from mgjax.models.clip.model import clip_model_inputs, make_clip_model
from mgjax.models.clip.towers import MEAN, STD
from mgjax.nn import lora
from mgjax.training.checkpoints.load_params import identity_of, load_params
from mgjax.training.checkpoints.workdir import write_workdir
from tests.random_parameters import random_parameters

torch = pytest.importorskip('torch', reason='the twin needs torch: pip install -e .[oracle]')
transformers = pytest.importorskip('transformers')
peft = pytest.importorskip('peft')

pytestmark = [
  pytest.mark.oracle,
  # peft 0.21 asks transformers 5 for what the latter is about to drop.
  pytest.mark.filterwarnings('ignore:.is_gradient_checkpointing:FutureWarning'),
]

WITHIN = 1e-5


def configuration(**lora_fields):
  config = clip_config.get_config()
  config.model.identity = 0
  config.model.vision.update(size=16, patch=8, dim=12, depth=2, heads=2, mlp_dim=16, projection=8)
  config.model.text.update(positions=48, dim=8, depth=2, heads=2, mlp_dim=8, projection=8)
  config.lora.update(lora_fields)
  return config


@pytest.fixture(scope='module')
def base(tmp_path_factory):
  """A CLIP of random weights, and beside it the same as a folder of transformers."""
  where, config = tmp_path_factory.mktemp('clip'), configuration()
  model = make_clip_model(fields_of(config, 'model'))
  params = random_parameters(model.init, *clip_model_inputs(model))
  write_workdir(config.to_dict(), params, {}, where / 'run', origin={'order': 'made'})
  export_weights(where / 'run', where / 'theirs', 'transformers')
  return where


@pytest.fixture(scope='module')
def style(base):
  """A run of adapters of all kernels, as training leaves it."""
  config = configuration(rank=3, alpha=6.0)
  config.start_from = str(base / 'run')
  params, meta = load_params(base / 'run')
  settings = lora.lora_settings(config.to_dict())
  model = make_clip_model(fields_of(config, 'model'))
  boxed = jax.eval_shape(model.init, jax.random.key(0), *clip_model_inputs(model))['params']
  adapters = random_parameters(lambda key: {'params': lora.init(key, lora=settings, boxed=boxed)})
  notes = {BASE: identity_of(params, meta)}
  write_workdir(config.to_dict(), adapters, notes, base / 'style', origin={'order': 'made'})
  return base / 'style'


def images():
  return np.random.default_rng(0).integers(0, 256, (2, 16, 16, 3), np.uint8)


def theirs_of(model):
  pixels = torch.tensor((images() / 255 - MEAN) / STD, dtype=torch.float32).permute(0, 3, 1, 2)
  with torch.no_grad():
    found = model.get_image_features(pixel_values=pixels)
  found = getattr(found, 'pooler_output', found).numpy()
  return found / np.linalg.norm(found, axis=-1, keepdims=True)


def test_peft_reads_what_is_written_without_a_key_too_few_or_too_many(base, style, tmp_path):
  export_weights(style, tmp_path / 'out', 'peft')
  plain = transformers.CLIPModel.from_pretrained(base / 'theirs').eval()
  before = theirs_of(plain)
  model = peft.PeftModel.from_pretrained(plain, str(tmp_path / 'out'))
  loaded = peft.set_peft_model_state_dict(
    model, load_file_torch(tmp_path / 'out/adapter_model.safetensors')
  )
  assert not loaded.unexpected_keys
  assert not [key for key in loaded.missing_keys if 'lora' in key]
  found = theirs_of(model)
  np.testing.assert_allclose(found, mgjax.load(style).encode_images(images()), atol=WITHIN)
  assert np.abs(found - before).max() > 100 * WITHIN


def test_what_peft_writes_is_read(base, tmp_path):
  torch.manual_seed(0)
  plain = transformers.CLIPModel.from_pretrained(base / 'theirs').eval()
  targets = ['q_proj', 'fc1', 'visual_projection']
  made = peft.LoraConfig(r=2, lora_alpha=5, target_modules=targets, init_lora_weights=False)
  model = peft.get_peft_model(plain, made).eval()
  model.save_pretrained(tmp_path / 'theirs')
  config = configuration()
  config.start_from = str(base / 'run')
  import_weights(config, tmp_path / 'theirs', tmp_path / 'run')
  ours = mgjax.load(tmp_path / 'run').encode_images(images())
  np.testing.assert_allclose(ours, theirs_of(model), atol=WITHIN)


def test_kohyas_names_are_those_that_diffusers_converts(style, tmp_path):
  convert = pytest.importorskip(
    'diffusers.loaders.lora_conversion_utils'
  )._convert_non_diffusers_lora_to_diffusers
  export_weights(style, tmp_path / 'kohya.safetensors', 'kohya')
  export_weights(style, tmp_path / 'peft', 'peft')
  ours = load_file_torch(tmp_path / 'kohya.safetensors')
  text = {key: tensor for key, tensor in ours.items() if key.startswith('lora_te_text_model')}
  converted, alphas = convert(dict(text))
  assert set(alphas.values()) == {6.0}
  wanted = load_file(tmp_path / 'peft/adapter_model.safetensors')
  assert len(converted) == sum('text_model' in key for key in wanted) == 24
  for name, tensor in converted.items():
    name = re.sub(r'self_attn\.to_(\w+)_lora', r'self_attn.\1_proj', name)
    name = name.replace('.lora_linear_layer', '').removeprefix('text_encoder.')
    name = name.replace('down.weight', 'lora_A.weight').replace('up.weight', 'lora_B.weight')
    np.testing.assert_array_equal(tensor.numpy(), wanted[f'base_model.model.{name}'], err_msg=name)


def load_file_torch(path):
  return {key: torch.tensor(array) for key, array in load_file(path).items()}
