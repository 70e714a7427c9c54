"""What every flow model reads of a configuration."""

import dataclasses
from collections.abc import Callable, Mapping

from mgjax.core.configuration.keys import Fields
from mgjax.core.errors import ConfigError
from mgjax.core.settings import fields_of, unpack
from mgjax.data.settings import DataSettings, data_settings, video_shapes
from mgjax.models.flow_model.build import make_discriminator, make_flow_model
from mgjax.models.flow_model.model import FlowModel
from mgjax.models.flow_model.objectives import Objectives, make_objectives
from mgjax.models.flow_model.settings import ObjectiveSettings, SampleSettings
from mgjax.sections.text.embeddings import TextSettings
from mgjax.training.settings import (
  AdversarySettings,
  BucketSettings,
  adversary_settings,
  bucket_settings,
)


@dataclasses.dataclass(frozen=True)
class FlowSettings:
  """All that the training of a flow model reads of a configuration beside `train`.

  Attributes:
    component: its name in `mgjax.registry`.
    seed: of the run.
    autoencoder: the work directory of the one whose latents it learns.
    start_from: where its first parameters come from; see `training.checkpoints.warm_start`.
    model: the module.
    objective: which times training draws, what it drops.
    objectives: what that makes of the model.
    critic: how a critic or a discriminator learns; None without one.
    opponent: its network; None without one.
    sample: how pictures and audio are made during training.
    data: what it learns from.
    buckets: how many samples come at once, by name.
    shapes: of the samples of each bucket, `Shape` of videos or `AudioShape` of audio.
    text: the frozen encoders whose embeddings it reads.
  """

  component: str
  seed: int
  autoencoder: str
  start_from: object
  model: FlowModel
  objective: ObjectiveSettings
  objectives: Objectives
  critic: AdversarySettings | None
  opponent: FlowModel | None
  sample: SampleSettings
  data: DataSettings
  buckets: Mapping[str, BucketSettings]
  shapes: Fields
  text: TextSettings

  @classmethod
  def of(cls, fields: Fields, shapes: Callable[..., Fields] = video_shapes) -> 'FlowSettings':
    """Reads a configuration as a plain dictionary, and nothing else: no data, no weights.

    `shapes` is `video_shapes`, or as `audio_shapes` without the frame rate. Raises ConfigError if a
    field is unknown, missing or out of its range.
    """
    model = make_flow_model(fields_of(fields, 'model'))
    data = data_settings(fields_of(fields, 'data'))
    objective = unpack(ObjectiveSettings, fields_of(fields, 'objective'), 'objective')
    objectives = make_objectives(objective, model)
    buckets = fields_of(fields, 'buckets')
    critic, opponent = _read_critic(fields, model, objective) if objectives.critic else (None, None)
    return cls(
      component=fields['component'],
      seed=fields['seed'],
      autoencoder=fields['autoencoder'],
      start_from=fields.get('start_from'),
      model=model,
      objective=objective,
      objectives=objectives,
      critic=critic,
      opponent=opponent,
      sample=unpack(SampleSettings, fields_of(fields, 'sample'), 'sample'),
      data=data,
      buckets=bucket_settings(buckets, data),
      shapes=shapes(buckets, data.fps),
      text=TextSettings.of(fields),
    )


def _read_critic(
  fields: Fields, model: FlowModel, objective: ObjectiveSettings
) -> tuple[AdversarySettings, FlowModel]:
  critic, others = adversary_settings(fields_of(fields, 'discriminator'))
  if objective.kind == 'adversarial':
    return critic, make_discriminator(others, fields_of(fields, 'model'))
  if others:
    raise ConfigError(
      f'discriminator has {sorted(others)}; the critic is a network as its teacher: give its '
      "'optimizer' alone"
    )
  return critic, model
