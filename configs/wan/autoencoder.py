"""The autoencoder of Wan 2.1: 16 numbers for each block of 4 x 8 x 8 pixels.

python -m launch.weights import --config=configs/wan/autoencoder.py --input=Wan2.1_VAE.pth \\
  --workdir=runs/wan/autoencoder

It is not trained here. `:2.2` is the autoencoder of the 5B model.
"""

from ml_collections import ConfigDict

from mgjax.core.errors import ConfigError
from mgjax.core.settings import defaults
from mgjax.models.tae.tiling import Tiling
from mgjax.models.tae.wan import WanAutoencoder

from ..base import base

VERSIONS = {
  '2.1': {},
  '2.2': {
    'encoder_width': 160,
    'decoder_width': 256,
    'latent_channels': 48,
    'patch': 2,
    'shortcuts': True,
  },
}


def get_config(version: str = '2.1') -> ConfigDict:
  if version not in VERSIONS:
    raise ConfigError(f'there is no version {version!r}; choose one of {", ".join(VERSIONS)}')
  config = base('autoencoder')
  config.model = defaults(WanAutoencoder, **VERSIONS[version])
  config.model.kind = 'wan'
  # Whole frames; size = 256 has tiles of space, for cards with little memory. None of time.
  config.tiling = defaults(Tiling)
  del config.tiling.frames, config.tiling.overlap
  return config
