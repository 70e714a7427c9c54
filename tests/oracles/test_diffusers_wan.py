"""What mgjax exports of Wan, diffusers loads: every key, and the same answers."""

import numpy as np
import pytest
from safetensors.numpy import save_file

from configs.wan import text_to_video
from mgjax.apps.weights.import_export import export_weights
from tests.models.wan.test_pictures import CONDITIONINGS, fields_of
from tests.models.wan.test_wan_weights import autoencoder_of, config_of, drawn, import_weights
from tests.oracles import wan as oracle
from tests.oracles import wan_pictures

pytestmark = pytest.mark.oracle


def load(kind, folder):
  loaded, info = kind.from_pretrained(folder, output_loading_info=True)
  assert not any(info[key] for key in ('missing_keys', 'unexpected_keys', 'mismatched_keys'))
  return loaded.eval().double()


@pytest.mark.parametrize('name', oracle.TRANSFORMERS)
def test_transformers(name, tmp_path):
  diffusers = pytest.importorskip('diffusers')
  save_file(drawn(name), tmp_path / 'wan.safetensors')
  import_weights(config_of(name), tmp_path / 'wan.safetensors', tmp_path / 'run')
  export_weights(tmp_path / 'run', tmp_path / 'out', 'diffusers')
  loaded = load(diffusers.WanTransformer3DModel, tmp_path / 'out')
  with np.load(oracle.VECTORS) as file:
    expected = file[f'{name}/velocity']
  np.testing.assert_allclose(
    oracle.answer(loaded, *oracle.draw_inputs(name)), expected, rtol=0, atol=1e-5
  )


@pytest.mark.parametrize('name', oracle.AUTOENCODERS)
def test_autoencoders(name, tmp_path):
  diffusers = pytest.importorskip('diffusers')
  save_file(drawn(name), tmp_path / 'vae.safetensors')
  import_weights(autoencoder_of(name), tmp_path / 'vae.safetensors', tmp_path / 'run')
  export_weights(tmp_path / 'run', tmp_path / 'out', 'diffusers')
  loaded = load(diffusers.AutoencoderKLWan, tmp_path / 'out')
  with np.load(oracle.VECTORS) as file:
    expected = file[f'{name}/encode_5']
  latents = oracle.code(loaded, 'encode', oracle.draw_video(name, 5))
  np.testing.assert_allclose(latents, expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize('name', wan_pictures.TRANSFORMERS)
def test_transformers_that_read_pictures(name, tmp_path):
  diffusers = pytest.importorskip('diffusers')
  import torch

  module = wan_pictures.make_transformer(name)
  given = {key: tensor.numpy() for key, tensor in module.state_dict().items()}
  save_file(given, tmp_path / 'wan.safetensors')
  config = text_to_video.get_config('debug')
  config.model.update(fields_of(name))
  config.model.conditionings.text.features = oracle.TEXT
  config.model.conditionings.update(CONDITIONINGS[name])
  import_weights(config, tmp_path / 'wan.safetensors', tmp_path / 'run')
  export_weights(tmp_path / 'run', tmp_path / 'out', 'diffusers')
  loaded = load(diffusers.WanTransformer3DModel, tmp_path / 'out').float()
  for key, tensor in loaded.state_dict().items():
    assert torch.equal(tensor, module.state_dict()[key]), key
  assert loaded.config.in_channels == module.config.in_channels
  assert loaded.config.image_dim == module.config.image_dim
  assert loaded.config.pos_embed_seq_len == module.config.pos_embed_seq_len
