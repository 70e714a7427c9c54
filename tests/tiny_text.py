"""Frozen encoders of text that are small enough for tests, and a model that reads two of them."""

import json
import pathlib

from configs.text import byt5_large
from mgjax.apps.weights.import_export import import_weights
from mgjax.core.safetensors_files import write_tensors
from mgjax.models.foreign_weights.names import export_tensors
from mgjax.models.text.t5 import make_t5, t5_inputs
from mgjax.models.text.t5_weights import t5_config, t5_rows
from tests import tiny
from tests.random_parameters import random_parameters

READS = {'long': 'prompt', 'quoted': 'visual_text'}


def encoder_config(seed: int = 0):
  """A ByT5 of two layers, 8 + seed numbers a token and at most 40 tokens."""
  config = byt5_large.get_config()
  config.length = 40
  config.model.update(
    dim=8 + seed,
    depth=2,
    heads=2,
    head_size=4,
    mlp_dim=16,
    dtype='float32',
    buckets=8,
    distance=16,
  )
  return config


def make_encoder(workdir: pathlib.Path, seed: int = 0) -> pathlib.Path:
  """Imports an encoder with random weights."""
  config = encoder_config(seed)
  fields = config.model.to_dict()
  params = random_parameters(make_t5(fields).init, *t5_inputs(), seed=seed)
  folder = workdir.with_name(f'{workdir.name}_published')
  folder.mkdir(parents=True)
  write_tensors(folder / 'model.safetensors', export_tensors(t5_rows(fields), params))
  (folder / 'config.json').write_text(json.dumps(t5_config(fields)))
  import_weights(config, folder, workdir)
  return workdir


def make_encoders(runs: pathlib.Path) -> dict[str, pathlib.Path]:
  """Makes the encoders 'long' and 'quoted', which differ in width."""
  return {name: make_encoder(runs / name, seed) for seed, name in enumerate(READS)}


def video(runs: pathlib.Path, encoders: dict[str, pathlib.Path], **changes):
  """`tiny.video` that reads stored states of both encoders."""
  config = tiny.video(runs, **changes)
  shapes = {name: {'features': 8 + seed, 'length': 40} for seed, name in enumerate(READS)}
  config.model.conditionings.text = {'kind': 'encoded_text', 'encoders': shapes}
  config.text = {
    name: {'workdir': str(encoders[name]), 'reads': reads} for name, reads in READS.items()
  }
  config.embeddings = ''
  return config
