"""A Wan small enough for tests, with random weights: autoencoder, text encoder, transformer."""

import pathlib

import jax.numpy as jnp
import numpy as np

from configs.wan import autoencoder as autoencoder_config
from configs.wan import text_to_video
from mgjax.core.settings import fields_of
from mgjax.models.flow_model.build import make_flow_model
from mgjax.models.flow_model.conditions import small_inputs
from mgjax.models.tae.autoencoder import make_autoencoder
from mgjax.models.tae.latents import Statistics
from mgjax.sections.autoencoder.pipeline import load_codec
from mgjax.sections.text.encoder import encoder_identity
from mgjax.training.checkpoints.workdir import write_workdir
from tests import tiny, tiny_text
from tests.random_parameters import random_parameters

AUTOENCODER = {'encoder_width': 8, 'decoder_width': 8, 'latent_channels': 4}
STATISTICS = Statistics((0.1, -0.2, 0.0, 0.3), (1.0, 2.0, 0.5, 1.5))
LENGTH = 40  # tokens of text


TOWER = {
  'size': 8,
  'patch': 4,
  'dim': 16,
  'depth': 1,
  'heads': 2,
  'mlp_dim': 32,
  'projection': None,
  'activation': 'exact_gelu',
}
# What reads pictures, as each published model has it.
PICTURES = {
  '2.1': {
    'frames': {'kind': 'frame_channels'},
    'picture': {'kind': 'picture_tokens', 'vision': TOWER},
  },
  'a14b': {'frames': {'kind': 'frame_channels'}},
  '5b': {'first': {'kind': 'first_latent'}},
}


def video(runs: pathlib.Path, size: str = 'debug', pictures: str = '', **changes):
  """The configuration of a Wan on the autoencoder and the encoder in `runs`."""
  config = text_to_video.get_config(size)
  read = PICTURES[pictures] if pictures else {}
  config.model.conditionings.update(read)
  config.objective.dropout.update(dict.fromkeys(read, 0.0))
  config.autoencoder = str(runs / 'autoencoder')
  config.text.umt5.workdir = str(runs / 'umt5')
  config.update_from_flattened_dict(
    {'data.threads': 1, 'optimizer.warmup': 2, 'model.dtype': 'float32'}
    | tiny.under('model', channels_out=4, text_dim=8)
    | tiny.under('model.conditionings.text', features=8, length=LENGTH)
    | tiny.under('buckets.video', frames=5, height=16, width=32, batch_size=2)
    | tiny.under(
      'train', steps=4, log_every=1, save_every=2, evaluate_every=0, validation_batches=1
    )
    | {'sample.steps': 4}
    | tiny.dotted(changes)
  )
  return config


def make_runs(runs: pathlib.Path) -> pathlib.Path:
  """Writes autoencoder/, umt5/ and video/ with random weights into `runs`."""
  config = autoencoder_config.get_config()
  config.model.update(AUTOENCODER)
  model = make_autoencoder(fields_of(config, 'model'))
  params = random_parameters(model.init, jnp.zeros((1, 5, 8, 8, 3)))
  notes = {'latents': STATISTICS.as_dict()}
  write_workdir(config.to_dict(), params, notes, runs / 'autoencoder', origin={'order': 'made'})
  tiny_text.make_encoder(runs / 'umt5')
  make_video(video(runs), runs / 'video')
  return runs


def make_video(config, workdir: pathlib.Path, seed: int = 0) -> None:
  """Writes a run of a configuration with random weights."""
  model = make_flow_model(fields_of(config, 'model'))
  params = random_parameters(model.init, *small_inputs(model, 4), seed=seed)
  notes = {
    'latents': STATISTICS.as_dict(),
    'encoders': {'umt5': encoder_identity(config.text.umt5.workdir)},
    'autoencoder': load_codec(config.autoencoder).fingerprints[0],
  }
  write_workdir(config.to_dict(), params, notes, workdir, origin={'order': 'made'})


def draw_clips(count: int) -> list[np.ndarray]:
  """Draws clips of 5 frames, 16 x 32 pixels."""
  numbers = np.random.default_rng(0)
  return [numbers.integers(0, 256, (5, 16, 32, 3), np.uint8) for _ in range(count)]
