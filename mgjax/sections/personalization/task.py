"""Trains personalized text-to-video models and encodes their data (Movie Gen §4)."""

import dataclasses
import functools
import pathlib
from collections.abc import Mapping
from typing import Annotated, Any

import numpy as np
from ml_collections import ConfigDict

from mgjax.core.errors import ConfigError
from mgjax.core.settings import Checked, Positive, Range, fields_of, unpack
from mgjax.core.typing import Wrapped
from mgjax.data.source import Source
from mgjax.data.sources import make_sources
from mgjax.models.conditioning.identity import KEY, Identity
from mgjax.models.flow_model.model import FlowModel
from mgjax.sections.flow.task import FlowSettings, make_video_encode_plan
from mgjax.sections.video.task import make_video_spec
from mgjax.training.spec import EncodePlan, TrainSpec


@dataclasses.dataclass(frozen=True)
class References(Checked):
  """`config.references`: pictures of the people in clips, and of those whom a user brings.

  Attributes:
    per_clip: how many the training data have of a clip.
    faces: what finds and compares faces in a user's pictures, see
      `mgjax.data.media.faces.recognition.open_faces`; '' takes pictures whole, as of moving digits.
    margin: around a face, as a share of its box. Not in public sources.
  """

  per_clip: Positive = 5
  faces: str = ''
  margin: Annotated[float, Range(least=0, most=2)] = 0.3

  @classmethod
  def of(cls, fields: Mapping[str, Any]) -> 'References':
    """Reads `references` of a configuration as a plain dictionary."""
    return unpack(cls, fields_of(fields, 'references'), 'references')


class Pairs(Wrapped):
  """Every clip with each of its references: pair i is clip i // k with the references from i % k.

  A model that reads several references of a person at a time sees one, two and so on up to as many
  as it reads, each number as often as the others.
  """

  def __init__(self, source: Source, references: int, read: int):
    """Pairs clips with references.

    Args:
      source: samples with 'reference' (k h w 3).
      references: k.
      read: how many the model reads at most.
    """
    super().__init__(source)
    self.references, self.read = references, read
    self.said = f'with each of {references} references, read {read}'

  def __len__(self) -> int:
    return len(self.source) * self.references

  def __getitem__(self, index: int) -> dict[str, Any]:
    clip, first = divmod(index, self.references)
    sample = self.source[clip]
    count = min(1 + (clip + first) % self.read, self.references)
    return sample | {KEY: np.roll(sample[KEY], -first, axis=0)[:count]}


def make_spec(config: ConfigDict, workdir: pathlib.Path) -> TrainSpec:
  """Makes the `TrainSpec`: that of text to video, on pairs of clips and references."""
  settings, make_sources = _unpack(config.to_dict())
  return make_video_spec(settings, workdir, starts=('video',), make_sources=make_sources)


def make_encode_plan(config: ConfigDict) -> EncodePlan:
  """Makes the plan by which `launch.data encode` turns pairs into latents and references."""
  return make_video_encode_plan(*_unpack(config.to_dict()))


def identity_of(model: FlowModel) -> Identity:
  """Returns the conditioning that reads references.
  Raises ConfigError if the model has none, or several.
  """
  found = [each for each in model.conditionings if isinstance(each, Identity)]
  if len(found) != 1:
    raise ConfigError(
      f"config.model.conditionings has {len(found)} of the kind 'identity'; expected one"
    )
  return found[0]


def _unpack(fields: Mapping[str, Any]) -> tuple[FlowSettings, Any]:
  """Returns the settings of a run, and what makes its sources."""
  settings, references = FlowSettings.of(fields), References.of(fields)
  read = identity_of(settings.model).references
  return settings, functools.partial(_make_pairs, references.per_clip, read)


def _make_pairs(references: int, read: int, *args: Any, **options: Any) -> Mapping[str, Source]:
  found = make_sources(*args, **options)
  data = args[0]
  if data.latents or references == 1:  # records of latents are pairs already
    return found
  return {name: Pairs(source, references, read) for name, source in found.items()}
