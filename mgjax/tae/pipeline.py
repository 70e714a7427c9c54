"""A trained autoencoder from its work directory: pixels to normalised latents and back."""

import os

from ml_collections import ConfigDict

from mgjax.checkpoints.workdir import load_params, read_config_of
from mgjax.core.settings import fields_of
from mgjax.core.typing import Tree
from mgjax.parallel.shard import on_every_device
from mgjax.tae.autoencoder import make_autoencoder
from mgjax.tae.latents import LatentCodec, Statistics
from mgjax.tae.tiling import Tiling


def load_codec(workdir: str | os.PathLike[str]) -> LatentCodec:
  """Reads a trained autoencoder with its latent statistics.

  Raises:
    ConfigError: the directory is not that of an autoencoder.
    CheckpointError: there is no checkpoint that can be trusted.
  """
  hint = ', set --config.autoencoder to its work directory'
  config, params, statistics = read_autoencoder(workdir, 'autoencoder', 'an autoencoder', hint)
  model = make_autoencoder(fields_of(config, 'model'))
  return LatentCodec(model, params, statistics, Tiling.of(dict(config.get('tiling', {}))))


def read_autoencoder(
  workdir: str | os.PathLike[str], component: str, noun: str, hint: str
) -> tuple[ConfigDict, Tree, Statistics]:
  """Reads configuration, parameters and latent statistics of a trained autoencoder or codec.

  Raises:
    ConfigError: the directory does not hold one.
    CheckpointError: there is no checkpoint that can be trusted.
  """
  config = read_config_of(workdir, component, noun, hint)
  params, meta = load_params(workdir, place=on_every_device())
  return config, params, Statistics.from_dict(meta['notes']['latents'])
