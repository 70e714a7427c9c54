"""The sections of mgjax, one row each: what every command needs to know of a component.

A run's `config.component` names its row. A new section adds a folder, a row here and a
configuration; docs/add_a_section.md does it once.
"""

import dataclasses
import importlib
from typing import Any

from ml_collections import ConfigDict

from mgjax.core.configuration.keys import did_you_mean
from mgjax.core.errors import ConfigError


class Late:
  """An object by its place, `package.module:name`, imported when it is first needed."""

  def __init__(self, place: str):
    self.place = place

  def get(self) -> Any:
    """Imports the module and returns the object."""
    module, _, name = self.place.partition(':')
    return getattr(importlib.import_module(module), name)

  def __call__(self, *args: Any, **kwargs: Any) -> Any:
    return self.get()(*args, **kwargs)


@dataclasses.dataclass(frozen=True)
class Section:
  """What the commands need of one component; None where it has no such thing.

  Attributes:
    noun: what a work directory of it holds, as in 'a video model'.
    family: 'flow model', 'autoencoder', 'codec', 'contrastive' or 'encoder': planned and timed
      the same way.
    make_spec: `(config, workdir) -> TrainSpec`, what is trained and on what.
    outline: `(config) -> Outline`, the model and tiny inputs, from the configuration alone.
    load: `(workdir, **options) ->` its pipeline, codec or encoder.
    request: the `sections.flow.requests.Request` that its pipeline writes files of.
    suites: kinds of prompt suites that it makes (`evaluation.suites.suite.KINDS`).
    weights: the `WeightFormat` by which its weights go in and out.
    evaluate: `(workdir, **options) -> Findings`.
    encode: `(config) -> EncodePlan`, how its training data become records of latents.
  """

  noun: str
  family: str
  make_spec: Late | None = None
  outline: Late | None = None
  load: Late | None = None
  request: Late | None = None
  suites: tuple[str, ...] = ()
  weights: Late | None = None
  evaluate: Late | None = None
  encode: Late | None = None


SECTIONS = {
  'autoencoder': Section(
    noun='an autoencoder',
    family='autoencoder',
    make_spec=Late('mgjax.sections.autoencoder.task:make_spec'),
    outline=Late('mgjax.sections.autoencoder.task:outline'),
    load=Late('mgjax.sections.autoencoder.pipeline:load_codec'),
    weights=Late('mgjax.models.tae.weights:FORMAT'),
    evaluate=Late('mgjax.lab.evaluation.evaluate:evaluate_autoencoder'),
  ),
  'video': Section(
    noun='a video model',
    family='flow model',
    make_spec=Late('mgjax.sections.video.task:make_spec'),
    outline=Late('mgjax.sections.video.task:outline'),
    load=Late('mgjax.sections.video.pipeline:VideoPipeline'),
    request=Late('mgjax.sections.video.files:Samples'),
    suites=('video', 'sound'),
    weights=Late('mgjax.models.flow_model.build:FORMAT'),
    evaluate=Late('mgjax.lab.evaluation.evaluate:evaluate_video'),
    encode=Late('mgjax.sections.video.task:make_encode_plan'),
  ),
  'upsampler': Section(
    noun='an upsampler',
    family='flow model',
    make_spec=Late('mgjax.sections.upsampler.task:make_spec'),
    outline=Late('mgjax.sections.upsampler.task:outline'),
    load=Late('mgjax.sections.upsampler.pipeline:Upsampler'),
    request=Late('mgjax.sections.upsampler.files:Enlarged'),
    weights=Late('mgjax.models.flow_model.build:FORMAT'),
    evaluate=Late('mgjax.lab.evaluation.evaluate:evaluate_upsampler'),
    encode=Late('mgjax.sections.upsampler.task:make_encode_plan'),
  ),
  'personalization': Section(
    noun='a personalized video model',
    family='flow model',
    make_spec=Late('mgjax.sections.personalization.task:make_spec'),
    outline=Late('mgjax.sections.video.task:outline'),
    load=Late('mgjax.sections.personalization.pipeline:PersonalizationPipeline'),
    request=Late('mgjax.sections.personalization.files:PersonalSamples'),
    suites=('video', 'sound'),
    weights=Late('mgjax.models.flow_model.build:FORMAT'),
    evaluate=Late('mgjax.lab.evaluation.evaluate:evaluate_personalization'),
    encode=Late('mgjax.sections.personalization.task:make_encode_plan'),
  ),
  'editing': Section(
    noun='a video editor',
    family='flow model',
    make_spec=Late('mgjax.sections.editing.task:make_spec'),
    outline=Late('mgjax.sections.video.task:outline'),
    load=Late('mgjax.sections.editing.pipeline:Editor'),
    request=Late('mgjax.sections.editing.files:Edited'),
    suites=('edit',),
    weights=Late('mgjax.models.flow_model.build:FORMAT'),
    evaluate=Late('mgjax.lab.evaluation.evaluate:evaluate_editing'),
    encode=Late('mgjax.sections.editing.task:make_encode_plan'),
  ),
  'codec': Section(
    noun='an audio codec',
    family='codec',
    make_spec=Late('mgjax.sections.codec.task:make_spec'),
    outline=Late('mgjax.sections.codec.task:outline'),
    load=Late('mgjax.sections.codec.pipeline:load_audio_codec'),
    weights=Late('mgjax.models.codec.weights:FORMAT'),
    evaluate=Late('mgjax.lab.evaluation.evaluate:evaluate_codec'),
  ),
  'audio': Section(
    noun='an audio model',
    family='flow model',
    make_spec=Late('mgjax.sections.audio.task:make_spec'),
    outline=Late('mgjax.sections.audio.task:outline'),
    load=Late('mgjax.sections.audio.pipeline:AudioPipeline'),
    request=Late('mgjax.sections.audio.files:Soundtrack'),
    suites=('sound',),
    weights=Late('mgjax.models.flow_model.build:FORMAT'),
    evaluate=Late('mgjax.lab.evaluation.evaluate:evaluate_audio'),
    encode=Late('mgjax.sections.audio.task:make_encode_plan'),
  ),
  'clip': Section(
    noun='a CLIP',
    family='contrastive',
    make_spec=Late('mgjax.sections.clip.task:make_spec'),
    outline=Late('mgjax.sections.clip.task:outline'),
    load=Late('mgjax.sections.clip.pipeline:Clip'),
    weights=Late('mgjax.models.clip.weights:PAIR_FORMAT'),
    evaluate=Late('mgjax.lab.evaluation.evaluate:evaluate_clip'),
  ),
  't5': Section(
    noun='an encoder of the T5 family',
    family='encoder',
    load=Late('mgjax.sections.text.encoder:TextEncoder'),
    weights=Late('mgjax.models.text.t5_weights:FORMAT'),
  ),
  'clip_text': Section(
    noun="CLIP's text tower",
    family='encoder',
    load=Late('mgjax.sections.text.encoder:TextEncoder'),
    weights=Late('mgjax.models.clip.weights:TEXT_FORMAT'),
  ),
  'clip_vision': Section(
    noun="CLIP's vision tower",
    family='encoder',
    weights=Late('mgjax.models.clip.weights:VISION_FORMAT'),
  ),
}


def section(component: str) -> Section:
  """Returns the row of a component. Raises ConfigError if there is no such component."""
  if not isinstance(component, str) or component not in SECTIONS:
    raise ConfigError(did_you_mean(f'{component!s:.80}', SECTIONS).replace('key', 'component'))
  return SECTIONS[component]


def check_family(component: str, family: str) -> None:
  """Checks that a component is of a family, as 'encoder'.
  Raises ConfigError if there is no such component, or it is of another family.
  """
  if section(component).family != family:
    able = ' or '.join(name for name, each in SECTIONS.items() if each.family == family)
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
  found = getattr(section(component), name)
  if found is None:
    able = ', '.join(key for key, each in SECTIONS.items() if getattr(each, name) is not None)
    raise ConfigError(f'the component {component!r} is not one that {what}; those are {able}')
  return found


def make_spec(config: ConfigDict, workdir: Any) -> Any:
  """Makes the `TrainSpec` of the component that a configuration describes.
  Raises ConfigError if there is no such component, or nobody trains it.
  """
  spec = feature(config.component, 'make_spec', 'can be trained')(config, workdir)
  return Late('mgjax.training.adapters:adapted')(spec, config.to_dict())
