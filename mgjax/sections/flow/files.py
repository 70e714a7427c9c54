"""Finds the autoencoder or codec whose latents a flow model learnt."""

import os
import pathlib
from collections.abc import Callable, Sequence
from typing import Any

from ml_collections import ConfigDict

from mgjax.core.configuration.keys import Fields
from mgjax.models.tae.latents import Statistics
from mgjax.training.checkpoints.find_run import read_needed
from mgjax.training.checkpoints.fingerprints import fingerprint_of
from mgjax.training.checkpoints.workdir import read_config, read_notes


def find_codec(
  workdir: str | os.PathLike[str],
  given: str,
  notes: Fields,
  load: Callable[[str | os.PathLike[str]], Any],
) -> Any:
  """Loads the autoencoder whose latents a model learnt, see `read_needed`.

  `given` is its place as the model's configuration says, `notes` are those of its checkpoint.
  """
  recorded = notes.get('autoencoder') or _told(notes)

  def read(place: pathlib.Path) -> tuple[Any, Sequence[str]]:
    codec = load(place)
    return codec, codec.fingerprints

  return read_needed(workdir, given, 'the autoencoder', recorded, read)


def find_autoencoder_config(workdir: str | os.PathLike[str], given: str) -> ConfigDict:
  """Reads the configuration of what `find_codec` would load; the statistics alone are compared."""

  def read(place: pathlib.Path) -> tuple[ConfigDict, Sequence[str]]:
    return read_config(place), [_told(read_notes(place)) or '']

  return read_needed(workdir, given, 'the autoencoder', _told(read_notes(workdir)), read)


def _told(notes: Fields) -> str | None:
  """The fingerprint of the statistics of latents, None where there are none."""
  found = notes.get('latents')
  return None if found is None else fingerprint_of(Statistics.from_dict(found).as_dict())
