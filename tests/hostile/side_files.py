"""Side files of a work directory, damaged: a sentence that names the file, or as if undamaged."""

from pathlib import Path

from mgjax.checkpoints.workdir import read_config
from mgjax.core.config_files import load_config
from mgjax.core.files import write_json
from tests.hostile.family import Family
from tests.hostile.mutations import mutate_json


def _seeds(folder: Path) -> list[Path]:
  write_json(folder / 'config.json', load_config('digits/video').to_dict())
  return [folder / 'config.json']


def _mutate(source, rng, target) -> None:
  target.write_bytes(mutate_json(source.read_bytes(), rng))


def _read(path: Path) -> None:
  read_config(path.parent)


FAMILIES = (Family('config.json', _seeds, _mutate, _read),)
