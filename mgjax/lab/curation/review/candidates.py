"""Hands the clips that a run's filters left to people, in files of their own.

clips.parquet    a row a clip, with the caption that was written
clips.json       of which videos they are, and how long clips are to be
decisions.jsonl  what people decided, on the page of mgjax/apps/serving
"""

import dataclasses
import os
import pathlib
from collections.abc import Sequence

from mgjax.core.configuration.keys import JSON, Fields
from mgjax.core.errors import ConfigError, DataError, printable
from mgjax.core.files import read_json, write_bytes, write_json
from mgjax.core.settings import Checked, Magnitude, unpack
from mgjax.data.ingest.inputs import Inputs
from mgjax.lab.curation.rows import digest, pyarrow, to_parquet

TABLE = 'clips.parquet'
ABOUT = 'clips.json'
COLUMNS = (
  'clip',
  'video',
  'place',
  'start',
  'end',
  'width',
  'height',
  'fps',
  'sound',
  'caption',
  'camera_class',
  'camera_confidence',
)


@dataclasses.dataclass(frozen=True)
class About(Checked):
  """A digest of the list of videos, and how many seconds a clip lasts at least and at most."""

  videos: str
  shortest: Magnitude
  longest: Magnitude


def write_candidates(
  folder: str | os.PathLike[str],
  rows: Sequence[Fields],
  inputs: Inputs,
  lengths: tuple[float, float],
) -> None:
  """Writes the clips that people are to look at: of each row what it has of COLUMNS."""
  folder = pathlib.Path(folder)
  arrays = {name: [row.get(name) for row in rows] for name in COLUMNS}
  write_bytes(folder / TABLE, to_parquet(pyarrow().table(arrays)))
  about = About(digest(inputs.identity), *map(float, lengths))
  write_json(folder / ABOUT, dataclasses.asdict(about))


def read_candidates(folder: str | os.PathLike[str], inputs: Inputs) -> tuple[list[JSON], About]:
  """Reads the clips that people are to look at.

  Raises:
    ConfigError: there are none, or of other videos than `inputs`.
    DataError: they are damaged.
  """
  folder = pathlib.Path(folder)
  mend = 'run launch.curate with this --output first, which leaves clips to be looked at'
  about = unpack(About, read_json(folder / ABOUT, mend=mend), ABOUT)
  if about.videos != digest(inputs.identity):
    raise ConfigError(
      f'{printable(folder)} is of other videos than --input; name those that were curated'
    )
  arrow = pyarrow()
  try:
    rows = arrow.parquet.read_table(folder / TABLE).to_pylist()
  except (arrow.ArrowException, OSError) as error:
    raise DataError(f'{printable(folder / TABLE)} is damaged ({error!s:.100}); {mend}') from error
  return rows, about
