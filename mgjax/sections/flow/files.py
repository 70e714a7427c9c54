"""Finds the autoencoder or codec whose latents a flow model learned."""

import os
import pathlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from mgjax.models.tae.latents import Statistics
from mgjax.training.checkpoints.find_run import read_needed
from mgjax.training.checkpoints.fingerprints import fingerprint_of
from mgjax.training.checkpoints.workdir import read_config, read_notes


def find_codec(
  workdir: str | os.PathLike[str],
  autoencoder: str,
  notes: Mapping[str, Any],
  load: Callable[[str | os.PathLike[str]], Any],
) -> Any:
  """Loads the autoencoder whose latents a model learned, see `read_needed`.

  `autoencoder` is its path from the model's configuration, `notes` are those of its checkpoint.
  """
  recorded = notes.get('autoencoder') or _statistics_fingerprint(notes)

  def read(path: pathlib.Path) -> tuple[Any, Sequence[str]]:
    codec = load(path)
    return codec, codec.fingerprints

  return read_needed(workdir, autoencoder, 'the autoencoder', recorded, read)


def find_autoencoder(workdir: str | os.PathLike[str], autoencoder: str) -> pathlib.Path:
  """Returns the work directory that `find_codec` would load; compares only the statistics."""

  def read(path: pathlib.Path) -> tuple[pathlib.Path, Sequence[str]]:
    read_config(path)
    return path, [_statistics_fingerprint(read_notes(path)) or '']

  return read_needed(
    workdir, autoencoder, 'the autoencoder', _statistics_fingerprint(read_notes(workdir)), read
  )


def _statistics_fingerprint(notes: Mapping[str, Any]) -> str | None:
  """Returns the fingerprint of the recorded latent statistics; None if there are none."""
  recorded = notes.get('latents')
  return None if recorded is None else fingerprint_of(Statistics.from_dict(recorded).as_dict())
