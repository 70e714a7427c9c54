"""A trained autoencoder from its work directory: pixels to normalised latents and back."""

import os

from ml_collections import ConfigDict

from mgjax.core.settings import fields_of
from mgjax.core.typing import Tree
from mgjax.models.tae.autoencoder import Autoencoder, make_autoencoder
from mgjax.models.tae.latents import LatentCodec, Statistics
from mgjax.models.tae.tiling import Tiling
from mgjax.models.tae.wan import WanAutoencoder
from mgjax.models.tae.wan_codec import WanCodec
from mgjax.parallel.shard import on_every_device
from mgjax.training.checkpoints.fingerprints import fingerprint_of
from mgjax.training.checkpoints.load_params import load_params
from mgjax.training.checkpoints.workdir import read_config_of

KEPT = 'encoder_of'  # among an autoencoder's notes: the fingerprints of runs whose encoder it kept


def load_codec(workdir: str | os.PathLike[str]) -> LatentCodec:
  """Reads a trained autoencoder with its latent statistics.

  Raises:
    ConfigError: the directory is not that of an autoencoder.
    CheckpointError: there is no checkpoint that can be trusted.
  """
  hint = ', set --config.autoencoder to its work directory'
  config, *read = read_autoencoder(workdir, 'autoencoder', 'an autoencoder', hint)
  params, statistics, fingerprints = read
  model = make_autoencoder(fields_of(config, 'model'))
  tiling = Tiling.of(dict(config.get('tiling', {})))
  return codec_class(model)(model, params, statistics, tiling, fingerprints)


def codec_class(model: Autoencoder | WanAutoencoder) -> type[LatentCodec]:
  """Returns the codec that encodes and decodes with such a model."""
  return WanCodec if isinstance(model, WanAutoencoder) else LatentCodec


def read_autoencoder(
  workdir: str | os.PathLike[str], component: str, noun: str, hint: str
) -> tuple[ConfigDict, Tree, Statistics, list[str]]:
  """Reads a trained autoencoder or codec.

  Returns configuration, parameters, statistics of the latents, and the fingerprints it answers to.
  These are its own, those of the runs whose encoder it kept, and that of the statistics, which is
  all that models of earlier releases recorded. Raises ConfigError if the directory does not hold an
  autoencoder, and CheckpointError if there is no checkpoint that can be trusted.
  """
  config = read_config_of(workdir, component, noun, hint)
  params, meta = load_params(workdir, sharding_of=on_every_device())
  notes = meta['notes']
  statistics = Statistics.from_dict(meta['notes']['latents'])
  moments = statistics.as_dict()
  own = fingerprint_of(moments, params)
  return config, params, statistics, [own, *notes.get(KEPT, []), fingerprint_of(moments)]
