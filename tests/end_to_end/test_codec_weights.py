"""A codec's weights in and out of work directories: published ones, half of them, its own."""

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from configs.audio import codec as published
from configs.tae import tae
from mgjax.apps.weights.import_export import export_weights, import_weights
from mgjax.core.errors import ConfigError
from mgjax.core.tree import named_leaves
from mgjax.models.codec.weights import import_published
from mgjax.sections.codec.pipeline import load_audio_codec
from mgjax.training.checkpoints.load_params import load_params
from mgjax.training.checkpoints.workdir import read_config
from tests.models.codec.shapes import shapes
from tests.models.codec.test_weights import CODEC, drawn, of_transformers
from tests.tensors import assert_same


@pytest.fixture(scope='module')
def place(tmp_path_factory):
  """A published codec, dac.safetensors, and what is made of it: run/."""
  place = tmp_path_factory.mktemp('codec')
  mark = {'decoder.wm_model.encoder_block.pre.3.weight': np.ones(3, np.float32)}
  save_file(drawn() | mark, place / 'dac.safetensors')
  import_weights(published.get_config(), place / 'dac.safetensors', place / 'run')
  return place


def test_a_published_codec_becomes_a_run_of_its_size(place, tmp_path, caplog):
  with caplog.at_level('INFO', 'mgjax'):
    import_weights(published.get_config(), place / 'dac.safetensors', tmp_path / 'run')
  said = ' '.join(caplog.messages)
  assert '1 tensors of a watermark are left out: sound will bear none' in said
  assert 'model.width: 64 -> 2, as the weights need it' in said
  codec = load_audio_codec(tmp_path / 'run')
  assert codec.model == CODEC and codec.statistics.std == (1.0,) * 3
  params, _ = import_published(drawn(), shapes(CODEC))
  assert_same(named_leaves(codec.params), named_leaves(params))
  assert read_config(tmp_path / 'run').model.dtype == 'float32'


def test_it_goes_back_by_its_names_bit_by_bit(place, tmp_path):
  export_weights(place / 'run', tmp_path / 'again.safetensors', 'dacvae')
  assert_same(load_file(tmp_path / 'again.safetensors'), drawn())


def test_exported_and_imported_every_bit_is_the_same(place, tmp_path):
  export_weights(place / 'run', tmp_path / 'one.safetensors')
  import_weights(published.get_config(), tmp_path / 'one.safetensors', tmp_path / 'run')
  export_weights(tmp_path / 'run', tmp_path / 'other.safetensors')
  first, second = ((tmp_path / f'{name}.safetensors').read_bytes() for name in ('one', 'other'))
  assert first == second
  with pytest.raises(ConfigError, match="holds the component 'codec'; expected 'autoencoder'"):
    import_weights(tae.get_config(), tmp_path / 'one.safetensors', tmp_path / 'tae')


def test_an_encoder_alone_leaves_the_decoder_as_initialised(place, tmp_path, caplog):
  save_file(of_transformers('encoder'), tmp_path / 'encoder.safetensors')
  config = published.get_config()
  config.model.update(latent_channels=3, decoder_width=8)
  import_weights(config, tmp_path / 'encoder.safetensors', tmp_path / 'run')
  assert "the file holds DAC's encoder alone; the rest of the codec starts anew" in caplog.messages
  params, _ = load_params(tmp_path / 'run')
  assert params['encoder']['level_0_down']['kernel'].shape == (4, 2, 4)
  assert params['decoder']['conv_in']['kernel'].std() > 0


@pytest.mark.oracle
def test_a_file_of_pytorch_is_the_same_codec(place, tmp_path):
  torch = pytest.importorskip('torch')
  state = {name: torch.tensor(tensor) for name, tensor in drawn().items()}
  torch.save({'state_dict': state, 'metadata': {}}, tmp_path / 'weights.pth')
  import_weights(published.get_config(), tmp_path / 'weights.pth', tmp_path / 'run')
  first, second = (load_params(path)[0] for path in (place / 'run', tmp_path / 'run'))
  assert_same(named_leaves(first), named_leaves(second))
