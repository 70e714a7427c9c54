"""Trains personalized text-to-video models and encodes their data (Movie Gen §4)."""

import pathlib
from collections.abc import Mapping

import numpy as np
from ml_collections import ConfigDict

from mgjax.core.typing import Sample, Wrapped
from mgjax.data.settings import DataSettings
from mgjax.data.source import Source
from mgjax.models.conditioning.identity import REFERENCE_KEY
from mgjax.sections.personalization.references import References, identity_conditioning
from mgjax.sections.video.section import VideoSection


class PersonalizationSection(VideoSection):
  """Text to video on pairs of clips and references of the people in them."""

  starts = ('video',)

  def __init__(self, config: ConfigDict):
    super().__init__(config)
    self.references = References.of(config.to_dict())
    self.read = identity_conditioning(self.settings.model).references

  def sources(
    self, data: DataSettings, split: str, report: pathlib.Path | None
  ) -> Mapping[str, Source]:
    sources = super().sources(data, split, report)
    count = self.references.per_clip
    if data.latents or count == 1:  # records of latents are pairs already
      return sources
    return {name: ReferencePairs(source, count, self.read) for name, source in sources.items()}


class ReferencePairs(Wrapped):
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

  def __getitem__(self, index: int) -> Sample:
    clip, first = divmod(index, self.references)
    sample = self.source[clip]
    count = min(1 + (clip + first) % self.read, self.references)
    return sample | {REFERENCE_KEY: np.roll(sample[REFERENCE_KEY], -first, axis=0)[:count]}
