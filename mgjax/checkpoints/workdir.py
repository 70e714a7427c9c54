"""Finished work directories back into models."""

import json
import os
import pathlib
from collections.abc import Callable, Mapping
from typing import Any

import jax
from ml_collections import ConfigDict

from mgjax.audio.codec.latents import SoundCodec
from mgjax.audio.codec.model import make_codec
from mgjax.checkpoints.manager import Checkpoints
from mgjax.checkpoints.orbax_io import Keep
from mgjax.core.errors import CheckpointError, ConfigError
from mgjax.core.typing import Tree
from mgjax.parallel.shard import Place, everywhere
from mgjax.tae.autoencoder import make_autoencoder
from mgjax.tae.latents import LatentCodec, Statistics
from mgjax.tae.tiling import Tiling

TYPES = 'types.json'  # of parameters, in work directories where not all are float32
NOUNS = {
  'autoencoder': 'an autoencoder',
  'codec': 'a codec of sound',
  'video': 'a video model',
  'audio': 'an audio model',
  't5': 'an encoder of the T5 family',
  'clip_text': "CLIP's text tower",
  'clip_vision': "CLIP's vision tower",
}


def read_config(workdir: str | os.PathLike[str]) -> ConfigDict:
  """Reads the configuration that a run was started with.

  Raises:
    ConfigError: no run was ever started there.
  """
  path = pathlib.Path(workdir) / 'config.json'
  if not path.exists():
    raise ConfigError(
      f'{os.fspath(workdir)!r} is not a work directory of launch.train (it has no config.json); '
      'train first, or mend the path'
    )
  return ConfigDict(json.loads(path.read_text()))


def read_config_of(workdir: str | os.PathLike[str], part: str, hint: str = '') -> ConfigDict:
  """Reads the configuration of a run of one part.

  Raises:
    ConfigError: the run was of another part, or there was none.
  """
  config = read_config(workdir)
  if config.part != part:
    raise ConfigError(
      f'{os.fspath(workdir)!r} trained the part {config.part!r}; expected {NOUNS[part]}{hint}'
    )
  return config


def places_of(
  workdir: str | os.PathLike[str], given: str | os.PathLike[str]
) -> tuple[pathlib.Path, pathlib.Path]:
  """Returns where a work directory that another one names may be: there, or moved along with it."""
  return pathlib.Path(given), pathlib.Path(workdir).absolute().parent / pathlib.Path(given).name


def open_checkpoints(
  workdir: str | os.PathLike[str], train: Mapping[str, Any] | ConfigDict | None = None
) -> Checkpoints:
  """Opens the checkpoints of a run: at its `train.checkpoints`, by default in its work directory.

  Args:
    workdir: of the run.
    train: the field of its configuration; by default of the one in the work directory.

  Raises:
    ConfigError: `train.checkpoints` is a path that depends on where one stands, or what `train`
      keeps makes no sense.
  """
  if train is None and (pathlib.Path(workdir) / 'config.json').exists():
    train = read_config(workdir).get('train')
  place = (train or {}).get('checkpoints') or ''
  if place and '://' not in place and not os.path.isabs(place):
    raise ConfigError(
      f'train.checkpoints = {place!r} is a relative path; give an absolute path, a URL such as '
      "gs://bucket/path, or '' for the work directory"
    )
  return Checkpoints(place or pathlib.Path(workdir) / 'checkpoints', _keep(train or {}))


def _keep(train: Mapping[str, Any] | ConfigDict) -> Keep:
  keep = Keep(train.get('keep', 3), train.get('keep_every', 0), train.get('keep_best', 0))
  save, evaluate = train.get('save_every', 0), train.get('evaluate_every', 0)
  if keep.best and not (evaluate and save % evaluate == 0):
    raise ConfigError(
      f'train.keep_best = {keep.best} needs the validation loss of every checkpoint, but '
      f'train.save_every = {save} is no multiple of train.evaluate_every = {evaluate}'
    )
  return keep


def read_shapes(workdir: str | os.PathLike[str]) -> dict[str, list[int]]:
  """Reads the shape of every parameter of a run, by name.

  Raises:
    CheckpointError: nothing was ever trained there.
  """
  path = pathlib.Path(workdir) / 'parameters.json'
  if not path.exists():
    raise CheckpointError(f'{os.fspath(workdir)!r} has no parameters.json; train there first')
  return json.loads(path.read_text())


def load_params(
  workdir: str | os.PathLike[str],
  which: str = 'average',
  place: Place | None = None,
  step: int | None = None,
) -> tuple[Tree, dict[str, Any]]:
  """Reads the averaged parameters of a run as they were saved, and the checkpoint's meta.

  Args:
    workdir: of the run.
    which: 'average' or 'params'.
    place: where each parameter goes, straight from disk; by default to one device.
    step: another checkpoint than the newest good one.

  Raises:
    CheckpointError: there is no checkpoint that can be trusted.
  """
  types = pathlib.Path(workdir) / TYPES
  named = json.loads(types.read_text()) if types.exists() else {}
  abstract = _unflatten(read_shapes(workdir), named, place)
  return open_checkpoints(workdir).restore_params(abstract, which, step)


def load_codec(workdir: str | os.PathLike[str]) -> LatentCodec:
  """Reads a trained autoencoder with its latent statistics.

  Raises:
    ConfigError: the directory is not that of an autoencoder.
    CheckpointError: there is no checkpoint that can be trusted.
  """
  hint = ', set --config.autoencoder to its work directory'
  config, params, statistics = _load(workdir, 'autoencoder', hint)
  model = make_autoencoder(config.model.to_dict())
  return LatentCodec(model, params, statistics, make_tiling(config))


def load_sound_codec(workdir: str | os.PathLike[str]) -> SoundCodec:
  """Reads a trained codec of sound with its latent statistics.

  Raises:
    ConfigError: the directory is not that of a codec.
    CheckpointError: there is no checkpoint that can be trusted.
  """
  hint = ', as launch.train makes with configs/audio/codec.py'
  config, params, statistics = _load(workdir, 'codec', hint)
  return SoundCodec(make_codec(config.model.to_dict()), params, statistics)


def make_start(
  config: ConfigDict, adapt: Callable[[Tree], Tree] = lambda params: params
) -> Callable[[Place], Tree] | None:
  """Makes what reads the parameters of `config.start_from`, a run of the same part; see `Part`.

  Args:
    config: of the run that begins; None is returned where it starts from nothing.
    adapt: what is done to the parameters.
  """

  def start(place: Place) -> Tree:
    if (part := read_config(config.start_from).part) != config.part:
      raise ConfigError(
        f'config.start_from={config.start_from!r} trained {part!r}, not {NOUNS[config.part]}'
      )
    return adapt(load_params(config.start_from, place=place)[0])

  return start if config.start_from else None


def _load(
  workdir: str | os.PathLike[str], part: str, hint: str
) -> tuple[ConfigDict, Tree, Statistics]:
  """Reads configuration, parameters and latent statistics of a trained autoencoder."""
  config = read_config_of(workdir, part, hint)
  params, meta = load_params(workdir, place=everywhere())
  return config, params, Statistics.from_dict(meta['notes']['latents'])


def make_tiling(config: ConfigDict) -> Tiling:
  """Returns the tiles that an autoencoder's configuration asks for, else those of the report."""
  return Tiling(**config.get('tiling', {}))


def _unflatten(
  shapes: Mapping[str, list[int]], types: Mapping[str, str], place: Place | None
) -> Tree:
  tree: Tree = {}
  for name, shape in shapes.items():
    *path, leaf = name.split('/')
    node = tree
    for key in path:
      node = node.setdefault(key, {})
    where = None if place is None else place(name, tuple(shape))
    node[leaf] = jax.ShapeDtypeStruct(tuple(shape), types.get(name, 'float32'), sharding=where)
  return tree
