"""Numbers by which two people find out whether they have the same Wan: digests and norms.

Norms are root mean squares. Inputs are drawn by NumPy from a fixed seed, and models compute in
float32, but for the text encoder, which computes as configured.
"""

import os
import pathlib
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from mgjax.core.settings import fields_of
from mgjax.core.typing import Array
from mgjax.models.flow_model.build import make_flow_model
from mgjax.models.flow_model.conditions import example_batch
from mgjax.models.tae.wan import decode
from mgjax.sections.autoencoder.pipeline import load_codec
from mgjax.sections.text.encoder import STATES, TextEncoder
from mgjax.training.checkpoints.load_params import load_params
from mgjax.training.checkpoints.workdir import read_config, read_notes

PROMPT = 'a cat walks on grass'
SIZE = (2, 8, 8)  # latents along t, h, w
TIME = 0.5

# (SHA-256 of the first file of a part, quantity) -> value, of published weights. Add what
# `launch.weights verify` prints for them.
RECORDED: Mapping[tuple[str, str], str] = {}


class Value(NamedTuple):
  """One quantity of a part of Wan."""

  part: str
  quantity: str
  value: str
  recorded: str | None  # None if nobody has recorded it yet


def is_wan(config: ConfigDict) -> bool:
  """Says whether a configuration is of a video model of Wan."""
  model: Any = config.get('model') or {}
  return config.get('component') == 'video' and model.get('kind') == 'wan'


def values_of(workdir: str | os.PathLike[str]) -> Iterator[Value]:
  """Yields the digests of the files of an imported Wan, and norms of what its parts answer.

  Parts are read from the folders inside `workdir`; those that are not there are left out.
  """
  workdir = pathlib.Path(workdir)
  config = read_config(workdir)
  ((_, encoder),) = config.text.items()
  text = workdir / pathlib.Path(encoder.workdir).name
  autoencoder = workdir / pathlib.Path(config.autoencoder).name
  if text.exists():
    (states,) = TextEncoder(text)([PROMPT])
    yield from _values('text encoder', text, 'states', states[STATES])
  yield from _values('transformer', workdir, 'velocity', _velocity(workdir, config))
  if autoencoder.exists():
    codec = load_codec(autoencoder)
    latents = _draw(codec.model.latent_channels)
    clip = jax.jit(lambda params: decode(codec.model, params, latents))(codec.params)
    yield from _values('autoencoder', autoencoder, 'clip', clip)


def _velocity(workdir: pathlib.Path, config: ConfigDict) -> Array:
  model = make_flow_model(fields_of(config, 'model') | {'dtype': 'float32'})
  params, _ = load_params(workdir)
  text = config.model.conditionings.text
  states = np.random.RandomState(1).standard_normal((1, text.length, text.features))
  latents = _draw(config.model.channels_out)
  # Zeros of whatever pictures it reads.
  batch = example_batch(model, PROMPT, latents.shape[1:])
  batch[f'text_{text.encoder}'] = jnp.asarray(states, jnp.float32)
  return jax.jit(model.apply)({'params': params}, latents, jnp.full(1, TIME), batch, {})


def _draw(channels: int) -> Array:
  latents = np.random.RandomState(0).standard_normal((1, *SIZE, channels))
  return jnp.asarray(latents, jnp.float32)


def _values(
  part: str, workdir: pathlib.Path, quantity: str, answer: np.ndarray | Array
) -> Iterator[Value]:
  digests = read_notes(workdir).get('source', {}).get('sha256', {})
  first = next(iter(digests.values()), '')
  for name, digest in digests.items():
    yield Value(part, f'SHA-256 of {name}', digest, RECORDED.get((first, name)))
  norm = float(np.sqrt(np.mean(np.square(np.asarray(answer, np.float64)))))
  yield Value(part, f'norm of {quantity}', f'{norm:.6g}', RECORDED.get((first, quantity)))
