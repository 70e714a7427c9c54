"""The synthetic datasets, which make clips on the fly; a kind of `config.data` names its row here.

A dataset is a source, a frozen dataclass whose fields are `config.data.<kind>`, beside `frames`,
`size`, `fps` and `sound`, which a bucket and the component decide. `source[index]` is a sample, a
function of its seed, split and index alone: 'video', 'caption' and its labels.
`source.validation(frames)` are the fields of the validation split. `source.by_seconds` says whether
events go by seconds, so that they need the rate, or by frames. `fingerprint`, `len(source)` and
`every_caption()`, which not all have, are as of any source of data.

A dataset with audio has a field `sound`, with which samples have 'audio' (s c) and 'events' in
seconds. It also has:

- `listen(index)`, a sample without pictures;
- `of_frames` and `of_events`, the keys of a sample that have an entry a frame or an event;
- `key`, numbers that draw by seed and split;
- `silence`, which says why nothing is heard, or ''.

Judges are what makes one of each kind, see `judging.py`; `example` is a caption that users may try.
Suites of prompts, and the judge of files of any model, ask `prompts`.
"""

import collections
import functools
from collections.abc import Mapping
from typing import Any, NamedTuple

from mgjax.core.configuration.keys import did_you_mean
from mgjax.core.errors import ConfigError
from mgjax.core.plug_ins import load_object

RATE = 48_000  # samples a second of the sound of all worlds


class World(NamedTuple):
  """Where a dataset's source, what makes its judges, and its `Prompts` lie, as 'module:name'."""

  source: str
  judges: Mapping[str, str]
  example: str
  prompts: str = ''


PROVIDER = 'mgjax.lab.worlds.rows:ROWS'  # read when a row is first asked for


class Table(collections.UserDict[str, World]):
  """Rows by name, from the provider."""

  def __init__(self):
    pass

  @functools.cached_property
  def data(self) -> dict[str, World]:
    return dict(load_object(PROVIDER))


WORLDS = Table()


def with_prompts() -> list[str]:
  """Returns the synthetic datasets that have prompts."""
  return [name for name, world in WORLDS.items() if world.prompts]


def source_of(world: str) -> type:
  """Returns the class of a dataset's source. Raises ConfigError if there is no such dataset."""
  if world not in WORLDS:
    raise ConfigError(did_you_mean(world, list(WORLDS)))
  return load_object(WORLDS[world].source)


def judged(what: str) -> list[str]:
  """Returns the synthetic datasets that have a judge of something."""
  return [name for name, world in WORLDS.items() if what in world.judges]


def judge_of(world: str, what: str) -> Any:
  """Returns what makes the judge of something, see `judging.py`.

  Those of 'video', 'edits' and 'references' are made of a source of training, those of 'pictures'
  and of what is 'enlarged' of one of validation, that of 'sound' of nothing. That of 'votes' is
  another one of videos, so that what learns from its votes can be judged by one that cast none.

  Raises ConfigError if it has none.
  """
  if world not in (known := judged(what)):
    raise ConfigError(
      f'no judge of {what} knows {world!r} data; expected a model of {" or ".join(known)}'
    )
  return load_object(WORLDS[world].judges[what])


def prompts_of(world: str) -> Any:
  """Returns the `Prompts` of a dataset. Raises ConfigError if it has none."""
  if world not in with_prompts():
    raise ConfigError(f'no prompts of {world!r}; expected {" or ".join(with_prompts())}')
  return load_object(WORLDS[world].prompts)()


def open_world(world: str, fields: Mapping[str, Any], split: str, **overrides: Any) -> Any:
  """Makes the source of a split, 'train' or 'validation'; `overrides` replace `fields`.

  Raises ConfigError if there is no such world, or its fields do not go together.
  """
  source = source_of(world)
  fields = {**fields, **overrides}
  if split == 'validation':
    fields |= source.validation(fields['frames'])
  return source(**fields)
