"""Trains video editing and encodes its data (Movie Gen §5)."""

import dataclasses
import pathlib
from collections.abc import Mapping

from ml_collections import ConfigDict

from mgjax.core.configuration.keys import JSON, Fields
from mgjax.core.errors import ConfigError
from mgjax.core.settings import Checked, fields_of, unpack
from mgjax.data.settings import DataSettings
from mgjax.data.source import Source
from mgjax.data.sources import make_sources
from mgjax.sections.editing.sources import Animated, AnyPlace, Motion, WithBlack
from mgjax.sections.video.section import VideoSection


@dataclasses.dataclass(frozen=True)
class Edits(Checked):
  """`config.edits`: how pairs become training data.

  Attributes:
    animated: buckets of clips that are made of pairs of pictures.
    prefix: of their instructions. The paper has one; its words are not in public sources.
    motion: how such pictures move.
    random_place: whether pictures stand anywhere in the table of temporal positions.
  """

  animated: tuple[str, ...] = ()
  prefix: str = 'animated: '
  motion: Motion = dataclasses.field(default_factory=Motion)
  random_place: bool = True

  @classmethod
  def of(cls, fields: Fields) -> 'Edits':
    """Reads `edits` of a configuration as a plain dictionary.
    Raises ConfigError if a field is unknown or out of its range, or a bucket is not there.
    """
    edits = unpack(cls, fields_of(fields, 'edits'), 'edits')
    buckets = fields['buckets']
    if unknown := sorted(set(edits.animated) - set(buckets)):
      raise ConfigError(
        f'edits.animated names {unknown[0]!r}; expected some of the buckets {sorted(buckets)}'
      )
    return edits


class EditingSection(VideoSection):
  """Text to video on pairs of clips: the one to change is read, too."""

  starts = ('video',)

  def __init__(self, config: ConfigDict):
    super().__init__(config)
    self.edits = Edits.of(config.to_dict())

  def describe_records(self, bucket: str) -> JSON:
    return self.about(bucket) | {'edits': dataclasses.asdict(self.edits)}

  def sources(
    self, data: DataSettings, split: str, report: pathlib.Path | None
  ) -> Mapping[str, Source]:
    settings, edits = self.settings, self.edits
    if data.latents:  # records have all of it
      return super().sources(data, split, report)
    still = {
      name: dataclasses.replace(shape, frames=1) if name in edits.animated else shape
      for name, shape in settings.shapes.items()
    }
    which = 2 * settings.seed + (split != 'train')  # so that validation moves otherwise
    edited_sources: dict[str, Source] = {}
    for name, source in make_sources(data, still, split, report).items():
      shape = settings.shapes[name]
      source = WithBlack(source)
      if name in edits.animated:
        source = Animated(source, shape.frames, edits.motion, edits.prefix, which)
      elif shape.frames == 1 and edits.random_place:
        source = AnyPlace(source, settings.model.backbone.positions[0], which)
      edited_sources[name] = source
    return edited_sources
