"""Trains the audio codec (Movie Gen §6)."""

import functools
import pathlib
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from mgjax.core.typing import Tree
from mgjax.data.audio_sources import make_audio_sources
from mgjax.data.media.audio import write_wav
from mgjax.data.media.audio_sheet import audio_sheet
from mgjax.data.settings import audio_shapes
from mgjax.data.sources import make_transform
from mgjax.models.codec.discriminators import Discriminators
from mgjax.models.codec.model import RATE, Codec, make_codec
from mgjax.models.codec.objective import (
  LossWeights,
  make_adversarial_objective,
  make_discriminator_objective,
  make_objective,
)
from mgjax.parallel.distributed import fetch
from mgjax.sections.autoencoder.task import ReconstructionSettings, latent_statistics
from mgjax.training.checkpoints.warm_start import make_start
from mgjax.training.spec import Adversary, Outline, TrainSpec, longest_of, make_buckets

SHOWN = 4  # sounds in a picture
STATISTICS_BATCHES = 32  # per bucket: samples are short


def codec_settings(fields: Mapping[str, Any]) -> ReconstructionSettings:
  """Reads a configuration of a codec as a plain dictionary."""
  return ReconstructionSettings.of(
    fields,
    make_model=make_codec,
    shapes=lambda buckets, fps: audio_shapes(buckets),
    weights=LossWeights,
    discriminator=Discriminators,
  )


def make_spec(config: ConfigDict, workdir: pathlib.Path) -> TrainSpec:
  """Makes the `TrainSpec`: audio in, audio out, latent statistics kept with the weights."""
  settings = codec_settings(config.to_dict())
  model, data = settings.model, settings.data
  transform = make_transform((), ('audio',))
  sources = functools.partial(make_audio_sources, data, settings.shapes)
  buckets, validation = make_buckets(
    settings.buckets, workdir, sources, transform, share=data.share
  )
  longest = longest_of(validation, settings.buckets)

  @jax.jit
  def encode(params: Tree, sound: jax.Array) -> jax.Array:
    return model.apply({'params': params}, sound, method='encode').mean

  def notes(whole: Callable[[], Tree]) -> dict[str, Any]:
    params = whole()
    run = lambda batch: encode(params, batch['audio'])  # noqa: E731
    return {'latents': latent_statistics(buckets, run, STATISTICS_BATCHES).as_dict()}

  @jax.jit
  def reconstruct(params: Tree, sound: jax.Array) -> jax.Array:
    latents = encode(params, sound)
    return model.apply({'params': params}, latents, sound.shape[1], method='decode')

  def show(params: Tree, directory: pathlib.Path) -> pathlib.Path:
    source = longest.source
    sound = np.stack([source[i]['audio'] for i in range(min(SHOWN, len(source)))])
    again = fetch(reconstruct(params, sound))
    sounds = [each for pair in zip(sound, again, strict=True) for each in pair]
    titles = [f'{i} {kind}' for i in range(len(sound)) for kind in ('original', 'reconstruction')]
    path = directory / 'reconstruction.png'
    if jax.process_index() == 0:
      audio_sheet(path, sounds, titles, RATE)
      for title, each in zip(titles, sounds, strict=True):
        write_wav(directory / f'{title.replace(" ", "_")}.wav', each, RATE)
    return path

  objective = make_objective(settings.weights)
  return TrainSpec(
    model=model,
    inputs=codec_inputs(model),
    objective=objective,
    validate=objective,
    buckets=buckets,
    validation=validation,
    prepare=lambda batch: {'audio': batch['audio']},
    show=show,
    notes=notes,
    start=make_start(settings.start_from, settings.component),
    discriminator=make_adversary(settings),
  )


def codec_inputs(codec: Codec) -> tuple[Any, ...]:
  """Returns what `codec.init` wants beside a key."""
  return jnp.zeros((1, codec.compression, codec.channels)), jax.random.key(0)


def make_adversary(settings: ReconstructionSettings) -> Adversary | None:
  """Makes the discriminators of `config.discriminator`; None where they have no weight."""
  weights = settings.weights
  if not (weights.adversarial or weights.features):
    return None
  samples = max(round(shape.seconds * RATE) for shape in settings.shapes.values())
  return settings.opponent(
    jnp.zeros((1, samples, settings.model.channels)),
    make_adversarial_objective(weights),
    make_discriminator_objective(),
  )


def outline(config: ConfigDict) -> Outline:
  """Returns the model of a configuration with the shortest sound that it takes."""
  model = codec_settings(config.to_dict()).model
  return Outline(model, codec_inputs(model))
