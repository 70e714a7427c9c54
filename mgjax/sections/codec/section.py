"""Trains the audio codec (Movie Gen §6)."""

import functools
import pathlib
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from mgjax.core.typing import Tree
from mgjax.data.audio_sources import make_audio_sources
from mgjax.data.batch_order import ShapeBucket
from mgjax.data.media.audio import write_wav
from mgjax.data.media.audio_sheet import audio_sheet
from mgjax.data.settings import audio_shapes
from mgjax.data.source import Source
from mgjax.data.sources import make_transform
from mgjax.models.codec.discriminators import Discriminators
from mgjax.models.codec.model import CODEC_RATE, Codec, make_codec
from mgjax.models.codec.objective import (
  LossWeights,
  make_adversarial_objective,
  make_discriminator_objective,
  make_objective,
)
from mgjax.parallel.distributed import fetch
from mgjax.sections.autoencoder.section import latent_statistics
from mgjax.sections.autoencoder.settings import ReconstructionSettings
from mgjax.training.checkpoints.warm_start import make_start
from mgjax.training.spec import (
  Adversary,
  Callbacks,
  Outline,
  TrainSpec,
  longest_of,
  make_buckets,
)

_SHOWN = 4  # sounds in a picture
_STATISTICS_BATCHES = 32  # per bucket: samples are short


class CodecSection:
  """Audio in, audio out, latent statistics kept with the weights."""

  def __init__(self, config: ConfigDict):
    """Reads a configuration; see `mgjax.training.spec.Section`."""
    self.settings = ReconstructionSettings.of(
      config.to_dict(),
      make_model=make_codec,
      shapes=lambda buckets, fps: audio_shapes(buckets),
      weights=LossWeights,
      discriminator=Discriminators,
    )

  def outline(self) -> Outline:
    """Returns the model with the shortest sound that it takes."""
    return Outline(self.settings.model, codec_inputs(self.settings.model))

  def training(self, workdir: pathlib.Path) -> TrainSpec:
    """Returns what is trained; see `mgjax.training.spec.Section`."""
    settings = self.settings
    buckets, validation = make_buckets(
      settings.buckets,
      workdir,
      functools.partial(make_audio_sources, settings.data, settings.shapes),
      make_transform((), ('audio',)),
      share=settings.data.share,
    )
    objective = make_objective(settings.weights)
    longest = longest_of(validation, settings.buckets)
    return TrainSpec(
      model=settings.model,
      inputs=codec_inputs(settings.model),
      objective=objective,
      validate=objective,
      buckets=buckets,
      validation=validation,
      prepare=lambda batch: {'audio': batch['audio']},
      callbacks=_Reconstructions(settings.model, buckets, longest.source),
      start=make_start(settings.start_from, settings.component),
      discriminator=_make_adversary(settings),
    )


class _Reconstructions(Callbacks):
  """Audio beside its reconstructions, and the statistics of latents."""

  def __init__(self, model: Codec, buckets: Sequence[ShapeBucket], source: Source):
    """Binds the buckets of training and the audio of validation that are shown."""
    self._buckets, self._source = buckets, source

    @jax.jit
    def encode(params: Tree, sound: jax.Array) -> jax.Array:
      return model.apply({'params': params}, sound, method='encode').mean

    @jax.jit
    def reconstruct(params: Tree, sound: jax.Array) -> jax.Array:
      latents = encode(params, sound)
      return model.apply({'params': params}, latents, sound.shape[1], method='decode')

    self._encode, self._reconstruct = encode, reconstruct

  def show(self, params: Tree, directory: pathlib.Path) -> pathlib.Path:
    source = self._source
    sound = np.stack([source[i]['audio'] for i in range(min(_SHOWN, len(source)))])
    again = fetch(self._reconstruct(params, sound))
    sounds = [waveform for pair in zip(sound, again, strict=True) for waveform in pair]
    titles = [f'{i} {kind}' for i in range(len(sound)) for kind in ('original', 'reconstruction')]
    path = directory / 'reconstruction.png'
    if jax.process_index() == 0:
      audio_sheet(path, sounds, titles, CODEC_RATE)
      for title, waveform in zip(titles, sounds, strict=True):
        write_wav(directory / f'{title.replace(" ", "_")}.wav', waveform, CODEC_RATE)
    return path

  def notes(self, get_params: Callable[[], Tree]) -> dict[str, Any]:
    params = get_params()
    run = lambda batch: self._encode(params, batch['audio'])  # noqa: E731
    return {'latents': latent_statistics(self._buckets, run, _STATISTICS_BATCHES).as_dict()}


def codec_inputs(codec: Codec) -> tuple[Tree, ...]:
  """Returns what `codec.init` wants beside a key."""
  return jnp.zeros((1, codec.compression, codec.channels)), jax.random.key(0)


def _make_adversary(settings: ReconstructionSettings) -> Adversary | None:
  """Makes the discriminators of `config.discriminator`; None where they have no weight."""
  weights = settings.weights
  if not (weights.adversarial or weights.features):
    return None
  samples = max(round(shape.seconds * CODEC_RATE) for shape in settings.shapes.values())
  return settings.opponent(
    jnp.zeros((1, samples, settings.model.channels)),
    make_adversarial_objective(weights),
    make_discriminator_objective(),
  )
