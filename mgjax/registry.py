"""The sections of mgjax, one row each: what every command needs to know of a component.

A run's `config.component` names its row. A new section adds a folder, a row here and a
configuration; docs/how_to/add_a_section.md does it once.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

from ml_collections import ConfigDict

from mgjax.core.configuration.keys import did_you_mean
from mgjax.core.errors import ConfigError
from mgjax.core.plug_ins import load_object


class Late:
  """An object named `package.module:name`, imported when it is first needed."""

  def __init__(self, target: str):
    self.target = target

  def get(self) -> Any:
    """Imports the module and returns the object."""
    return load_object(self.target)

  def __call__(self, *args: object, **kwargs: object) -> Any:
    return self.get()(*args, **kwargs)


@dataclasses.dataclass(frozen=True)
class Component:
  """What the commands need of one component; None where it has no such thing.

  Attributes:
    noun: what a work directory of it holds, as in 'a video model'.
    family: 'flow model', 'autoencoder', 'codec', 'contrastive' or 'encoder': planned and timed
      the same way.
    section: the `mgjax.training.spec.Section` that trains it.
    load: `(workdir, **options) ->` its pipeline, codec or encoder.
    request: the `sections.flow.requests.Request` that its pipeline writes files of.
    sample_command: the first word of `launch.sample` that samples it.
    suites: kinds of prompt suites that it makes (`lab.evaluation.suites.suite.KINDS`).
    weights: the `WeightFormat` by which its weights go in and out.
    weights_of: that of models of another `model.kind`, by its name.
  """

  noun: str
  family: str
  section: Late | None = None
  load: Late | None = None
  request: Late | None = None
  sample_command: str = ''
  suites: tuple[str, ...] = ()
  weights: Late | None = None
  weights_of: Mapping[str, Late] = dataclasses.field(default_factory=dict)


COMPONENTS = {
  'autoencoder': Component(
    noun='an autoencoder',
    family='autoencoder',
    section=Late('mgjax.sections.autoencoder.section:AutoencoderSection'),
    load=Late('mgjax.sections.autoencoder.pipeline:load_codec'),
    weights=Late('mgjax.models.tae.weights:AUTOENCODER_FORMAT'),
    weights_of={'wan': Late('mgjax.models.tae.wan_files.weights:AUTOENCODER_FORMAT')},
  ),
  'video': Component(
    noun='a video model',
    family='flow model',
    section=Late('mgjax.sections.video.section:VideoSection'),
    load=Late('mgjax.sections.video.pipeline:VideoPipeline'),
    request=Late('mgjax.sections.video.files:Samples'),
    sample_command='video',
    suites=('video', 'sound'),
    weights=Late('mgjax.models.flow_model.build:FLOW_MODEL_FORMAT'),
    weights_of={'wan': Late('mgjax.models.flow_model.wan_weights:TRANSFORMER_FORMAT')},
  ),
  'upsampler': Component(
    noun='an upsampler',
    family='flow model',
    section=Late('mgjax.sections.upsampler.section:UpsamplerSection'),
    load=Late('mgjax.sections.upsampler.pipeline:Upsampler'),
    request=Late('mgjax.sections.upsampler.files:Enlarged'),
    sample_command='upsample',
    weights=Late('mgjax.models.flow_model.build:FLOW_MODEL_FORMAT'),
  ),
  'personalization': Component(
    noun='a personalized video model',
    family='flow model',
    section=Late('mgjax.sections.personalization.section:PersonalizationSection'),
    load=Late('mgjax.sections.personalization.pipeline:PersonalizationPipeline'),
    request=Late('mgjax.sections.personalization.files:PersonalSamples'),
    sample_command='personalize',
    suites=('video', 'sound'),
    weights=Late('mgjax.models.flow_model.build:FLOW_MODEL_FORMAT'),
  ),
  'editing': Component(
    noun='a video editor',
    family='flow model',
    section=Late('mgjax.sections.editing.section:EditingSection'),
    load=Late('mgjax.sections.editing.pipeline:Editor'),
    request=Late('mgjax.sections.editing.files:Edited'),
    sample_command='edit',
    suites=('edit',),
    weights=Late('mgjax.models.flow_model.build:FLOW_MODEL_FORMAT'),
  ),
  'codec': Component(
    noun='an audio codec',
    family='codec',
    section=Late('mgjax.sections.codec.section:CodecSection'),
    load=Late('mgjax.sections.codec.pipeline:load_audio_codec'),
    weights=Late('mgjax.models.codec.weights:CODEC_FORMAT'),
  ),
  'audio': Component(
    noun='an audio model',
    family='flow model',
    section=Late('mgjax.sections.audio.section:AudioSection'),
    load=Late('mgjax.sections.audio.pipeline:AudioPipeline'),
    request=Late('mgjax.sections.audio.files:Soundtrack'),
    sample_command='audio',
    suites=('sound',),
    weights=Late('mgjax.models.flow_model.build:FLOW_MODEL_FORMAT'),
  ),
  'clip': Component(
    noun='a CLIP',
    family='contrastive',
    section=Late('mgjax.sections.clip.section:ClipSection'),
    load=Late('mgjax.sections.clip.pipeline:Clip'),
    weights=Late('mgjax.models.clip.weights:PAIR_FORMAT'),
  ),
  't5': Component(
    noun='an encoder of the T5 family',
    family='encoder',
    load=Late('mgjax.sections.text.encoder:TextEncoder'),
    weights=Late('mgjax.models.text.t5_weights:T5_FORMAT'),
  ),
  'clip_text': Component(
    noun="CLIP's text tower",
    family='encoder',
    load=Late('mgjax.sections.text.encoder:TextEncoder'),
    weights=Late('mgjax.models.clip.weights:TEXT_FORMAT'),
  ),
  'clip_vision': Component(
    noun="CLIP's vision tower",
    family='encoder',
    weights=Late('mgjax.models.clip.weights:VISION_FORMAT'),
  ),
}


def find_component(component: str) -> Component:
  """Returns the row of a component. Raises ConfigError if there is no such component."""
  if not isinstance(component, str) or component not in COMPONENTS:
    raise ConfigError(did_you_mean(f'{component!s:.80}', COMPONENTS).replace('key', 'component'))
  return COMPONENTS[component]


def check_family(component: str, family: str) -> None:
  """Checks that a component is of a family, as 'encoder'.
  Raises ConfigError if there is no such component, or it is of another family.
  """
  if find_component(component).family != family:
    able = ' or '.join(name for name, row in COMPONENTS.items() if row.family == family)
    raise ConfigError(f'the configuration is of the component {component!r}; expected {able}')


def feature(component: str, name: str, what: str) -> Late:
  """Returns a field of a component's row that a command cannot do without.

  Args:
    component: as in `config.component`.
    name: of the field.
    what: the command, for the message, as in 'can be trained'.

  Raises:
    ConfigError: there is no such component, or it has no such thing.
  """
  value = getattr(find_component(component), name)
  if value is None:
    able = ', '.join(key for key, row in COMPONENTS.items() if getattr(row, name) is not None)
    raise ConfigError(f'the component {component!r} is not one that {what}; those are {able}')
  return value


def weight_format(config: ConfigDict) -> Any:
  """Returns the `WeightFormat` of the component and the `model.kind` of a configuration.
  Raises ConfigError if there is no such component, or it has no weights.
  """
  weights = feature(config.component, 'weights', 'has weights to import or export')
  model = config.to_dict().get('model')
  kind = model.get('kind') if isinstance(model, Mapping) else None
  return find_component(config.component).weights_of.get(kind, weights).get()


def make_section(config: ConfigDict) -> Any:
  """Makes the `mgjax.training.spec.Section` of the component that a configuration describes.
  Raises ConfigError if there is no such component, nobody trains it, or a field is wrong.
  """
  return feature(config.component, 'section', 'can be trained')(config)


def make_spec(config: ConfigDict, workdir: object) -> Any:
  """Makes the `TrainSpec` of a configuration, with the adapters and evaluators that it asks for.
  Raises ConfigError as `make_section`.
  """
  fields = config.to_dict()
  spec = make_section(config).training(workdir)
  spec = Late('mgjax.training.adapters:adapted')(spec, fields)
  if not fields.get('evaluators'):
    return spec
  return Late('mgjax.lab.evaluation.in_training:evaluated')(spec, fields, workdir)
