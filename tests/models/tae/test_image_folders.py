"""Folders of image autoencoders from strangers: what they say is compared, not believed."""

import numpy as np
import pytest

from configs.tae import tae
from mgjax.core.errors import ConfigError
from mgjax.models.tae.inflate import inflate, read_image_autoencoder
from mgjax.models.tae.weights import AUTOENCODER_FORMAT
from tests.models.tae.test_inflate import inflated, read_fields, tensors_of, untrained, write_folder


@pytest.mark.parametrize('number', ['7', '1000000000', '9' * 5000])
@pytest.mark.parametrize('place', ['down_blocks.{}.resnets.0', 'down_blocks.0.resnets.{}'])
@pytest.mark.parametrize('kind', ['conv2.more', 'conv1.weight'])
def test_layers_are_counted_and_not_believed(number, place, kind, tmp_path):
  name = f'encoder.{place.format(number)}.{kind}'
  tensors = tensors_of('quant') | {name: np.zeros(4, np.float32)}
  write_folder(tmp_path, 'quant', tensors)
  assert read_image_autoencoder(tmp_path).fields == read_fields('quant')
  with pytest.raises(ConfigError, match=r'1 unknown \(encoder\.down_blocks') as caught:
    inflate(tensors, untrained(inflated('quant', 2)[0]))
  assert len(str(caught.value)) < 600


def test_widths_that_take_no_bytes_are_refused(tmp_path):
  empty = {
    name: np.zeros((0, 2**40) if tensor.ndim > 1 else 0, np.float32)
    for name, tensor in tensors_of('quant').items()
  }
  write_folder(tmp_path, 'quant', empty)
  with pytest.raises(ConfigError, match='is empty and of shape'):
    read_image_autoencoder(tmp_path)


@pytest.mark.parametrize('shape', [(2**20, 1), (2**40, 0)])
def test_one_tensor_that_claims_a_great_width_makes_nothing(shape, tmp_path):
  tensors = tensors_of('plain') | {
    'encoder.down_blocks.1.resnets.0.conv2.weight': np.ones(shape, 'f')
  }
  folder = write_folder(tmp_path, 'plain', tensors, block_out_channels=...)
  with pytest.raises(ConfigError, match=r'do not make this model|is empty and of shape'):
    assert AUTOENCODER_FORMAT.read is not None
    AUTOENCODER_FORMAT.read(tae.get_config().model.to_dict(), folder, seed=0, keep_type=False)
