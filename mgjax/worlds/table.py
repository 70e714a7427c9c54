"""The worlds that make clips on the fly, one row each: a kind of `config.data` names its row.

A world is a source, a frozen dataclass whose fields are `config.data.<kind>`, beside `frames`,
`size`, `fps` and `sound`, which a bucket and the component decide. `source[index]` is a sample, a
function of its seed, split and index alone: 'video', 'caption' and what else the world knows.
`source.validation(frames)` are the fields of what validates, `source.by_seconds` says whether what
happens goes by seconds, so that it needs the rate, or by frames. `fingerprint`, `len(source)` and
`every_caption()`, which not all have, are as of any source of data.
"""

import importlib
from collections.abc import Mapping
from typing import Any

from mgjax.core.config import did_you_mean
from mgjax.core.errors import ConfigError

WORLDS = {
  'digits': 'mgjax.worlds.digits.clips:Digits',
  'signs': 'mgjax.worlds.digits.signs:Signs',
  'solids': 'mgjax.worlds.solids.clips:Solids',
}


def source_of(world: str) -> type:
  """Returns the class of a world's source. Raises ConfigError if there is no such world."""
  if world not in WORLDS:
    raise ConfigError(did_you_mean(world, list(WORLDS)))
  module, _, name = WORLDS[world].partition(':')
  return getattr(importlib.import_module(module), name)


def open_world(world: str, fields: Mapping[str, Any], split: str, **more: Any) -> Any:
  """Makes the source of a split, 'train' or 'validation'; `more` are fields that come first.

  Raises ConfigError if there is no such world, or its fields do not go together.
  """
  source, fields = source_of(world), {**fields, **more}
  if split == 'validation':
    fields |= source.validation(fields['frames'])
  return source(**fields)
