"""What autoencoders of videos and of audio read of a configuration."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import flax.linen as nn

from mgjax.core.configuration.keys import JSON, Fields
from mgjax.core.settings import fields_of, unpack
from mgjax.data.settings import DataSettings, data_settings
from mgjax.training.optimizers.rates import Rates
from mgjax.training.settings import (
  AdversarySettings,
  BucketSettings,
  adversary_settings,
  bucket_settings,
  optimizer_settings,
)
from mgjax.training.spec import Adversary


@dataclasses.dataclass(frozen=True)
class ReconstructionSettings:
  """What the training of an autoencoder or a codec reads of a configuration beside `train`.

  Attributes:
    start_from: where its first parameters come from; see `training.checkpoints.warm_start`.
    shapes: of the samples of each bucket, `Shape` of videos or `AudioShape` of audio.
    discriminator: the module that it trains against, where `weights` say so.
  """

  component: str
  start_from: object
  model: nn.Module
  data: DataSettings
  shapes: Fields
  buckets: Mapping[str, BucketSettings]
  rates: Rates
  weights: Any
  discriminator: nn.Module
  adversary: AdversarySettings

  @classmethod
  def of(
    cls,
    fields: Fields,
    *,
    make_model: Callable[[JSON], Any],
    shapes: Callable[..., Fields],
    weights: type[Any],
    discriminator: type[Any],
  ) -> 'ReconstructionSettings':
    """Reads a configuration as a plain dictionary, before any data are read.

    `shapes` is `video_shapes`, or as `audio_shapes` without the frame rate.
    Raises ConfigError if a field is unknown, missing or out of its range.
    """
    model = make_model(fields_of(fields, 'model'))
    data = data_settings(fields_of(fields, 'data'))
    buckets = fields_of(fields, 'buckets')
    adversary, network = adversary_settings(fields_of(fields, 'discriminator'))
    return cls(
      component=fields['component'],
      start_from=fields.get('start_from'),
      model=model,
      data=data,
      shapes=shapes(buckets, data.fps),
      buckets=bucket_settings(buckets, data),
      rates=optimizer_settings(fields_of(fields, 'optimizer')).rates,
      weights=unpack(weights, fields_of(fields, 'objective'), 'objective'),
      discriminator=unpack(discriminator, network, 'discriminator', dtype=model.dtype),
      adversary=adversary,
    )

  def opponent(self, inputs: Any, generator: Any, objective: Any) -> Adversary:
    """Returns the discriminator with its first input and the objectives of both networks."""
    return Adversary(
      model=self.discriminator,
      inputs=(inputs,),
      generator_objective=generator,
      objective=objective,
      optimizer=self.adversary.optimizer,
      start=self.adversary.start,
    )
