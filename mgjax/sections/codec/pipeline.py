"""A trained audio codec from its work directory: samples to normalised latents and back."""

import os

from mgjax.core.settings import fields_of
from mgjax.models.codec.latents import AudioCodec
from mgjax.models.codec.model import make_codec
from mgjax.sections.autoencoder.pipeline import read_autoencoder


def load_audio_codec(workdir: str | os.PathLike[str]) -> AudioCodec:
  """Reads a trained audio codec with its latent statistics.

  Raises ConfigError if the directory is not that of a codec, or CheckpointError if there is no
  checkpoint that can be trusted.
  """
  hint = ', as launch.train makes with configs/audio/codec.py'
  config, *read = read_autoencoder(workdir, 'codec', 'an audio codec', hint)
  params, statistics, fingerprints = read
  model = make_codec(fields_of(config, 'model'))
  return AudioCodec(model, params, statistics, fingerprints=fingerprints)
