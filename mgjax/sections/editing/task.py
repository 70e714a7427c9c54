"""Trains video editing and encodes its data (Movie Gen §5)."""

import dataclasses
import functools
import pathlib
from collections.abc import Mapping
from typing import Any

from ml_collections import ConfigDict

from mgjax.core.errors import ConfigError
from mgjax.core.settings import Checked, fields_of, unpack
from mgjax.data.buckets import Shape
from mgjax.data.settings import DataSettings
from mgjax.data.source import Source
from mgjax.data.sources import make_sources
from mgjax.sections.editing.sources import Animated, AnyPlace, Motion, WithBlack
from mgjax.sections.flow.task import FlowSettings, make_video_encode_plan
from mgjax.sections.video.task import make_video_spec
from mgjax.training.spec import EncodePlan, TrainSpec


@dataclasses.dataclass(frozen=True)
class Edits(Checked):
  """`config.edits`: how pairs become training data.

  Attributes:
    animated: buckets of clips that are made of pairs of pictures.
    prefix: of their instructions. The report has one; its words are not in public sources.
    motion: how such pictures move.
    random_place: whether pictures stand anywhere in the table of temporal positions.
  """

  animated: tuple[str, ...] = ()
  prefix: str = 'animated: '
  motion: Motion = dataclasses.field(default_factory=Motion)
  random_place: bool = True

  @classmethod
  def of(cls, fields: Mapping[str, Any]) -> 'Edits':
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


def make_spec(config: ConfigDict, workdir: pathlib.Path) -> TrainSpec:
  """Makes the `TrainSpec`: that of text to video, on pairs of clips."""
  settings, _, make_sources = _unpack(config.to_dict())
  return make_video_spec(settings, workdir, starts=('video',), make_sources=make_sources)


def make_encode_plan(config: ConfigDict) -> EncodePlan:
  """Makes the plan by which `launch.data encode` turns pairs into latents of both clips."""
  settings, edits, make_sources = _unpack(config.to_dict())
  return make_video_encode_plan(settings, make_sources, {'edits': dataclasses.asdict(edits)})


def _unpack(fields: Mapping[str, Any]) -> tuple[FlowSettings, Edits, Any]:
  """Returns the settings of a run, those of its edits, and what makes its sources."""
  settings, edits = FlowSettings.of(fields), Edits.of(fields)
  places = settings.model.backbone.positions[0]
  return settings, edits, functools.partial(_make_pairs, edits, places, settings.seed)


def _make_pairs(
  edits: Edits,
  places: int,
  seed: int,
  data: DataSettings,
  shapes: Mapping[str, Shape],
  split: str,
  report: Any = None,
) -> Mapping[str, Source]:
  if data.latents:  # records have all of it
    return make_sources(data, shapes, split, report)
  still = {
    name: dataclasses.replace(shape, frames=1) if name in edits.animated else shape
    for name, shape in shapes.items()
  }
  which = 2 * seed + (split != 'train')  # so that validation moves otherwise
  made: dict[str, Source] = {}
  for name, source in make_sources(data, still, split, report).items():
    source = WithBlack(source)
    if name in edits.animated:
      source = Animated(source, shapes[name].frames, edits.motion, edits.prefix, which)
    elif shapes[name].frames == 1 and edits.random_place:
      source = AnyPlace(source, places, which)
    made[name] = source
  return made
