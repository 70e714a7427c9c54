"""Image autoencoders whose tensors claim a great model, of which nothing is made."""

import numpy as np
import pytest

from configs.tae import tae
from mgjax.core.errors import ConfigError
from mgjax.tae.inflate import read_image_autoencoder
from mgjax.tae.weights import FORMAT
from tests.tae.test_inflate import read_fields, tensors_of, write_folder


@pytest.mark.parametrize('number', ['10', '1000000000', '9' * 5000])
@pytest.mark.parametrize('place', ['{}.resnets.0', '0.resnets.{}'])
def test_a_layer_of_a_great_number_makes_no_great_model(place, number, tmp_path):
  name = f'encoder.down_blocks.{place.format(number)}.conv1.weight'
  tensors = tensors_of('plain') | {name: np.ones(1, np.float32)}
  fields, found, _ = read_image_autoencoder(write_folder(tmp_path, 'plain', tensors))
  assert fields == read_fields('plain') and name in found  # of which inflating says it is unknown


@pytest.mark.parametrize('shape', [(2**20, 1), (2**40, 0)])
def test_one_tensor_that_claims_a_great_width_makes_nothing(shape, tmp_path):
  tensors = tensors_of('plain') | {
    'encoder.down_blocks.1.resnets.0.conv2.weight': np.ones(shape, 'f')
  }
  folder = write_folder(tmp_path, 'plain', tensors, block_out_channels=...)
  with pytest.raises(ConfigError, match=r'do not make this model|is empty and of shape'):
    assert FORMAT.read is not None
    FORMAT.read(tae.get_config().model.to_dict(), folder, seed=0, keep_type=False)
