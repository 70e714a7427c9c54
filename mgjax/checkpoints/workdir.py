"""Reads work directories of runs, and writes those of imported and averaged weights."""

import importlib.metadata
import json
import os
import pathlib
import sys
from collections.abc import Mapping, Sequence
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
from ml_collections import ConfigDict

import mgjax
from mgjax.checkpoints.manager import Checkpoints
from mgjax.checkpoints.orbax_io import Keep, keep_settings
from mgjax.core.errors import CheckpointError, ConfigError
from mgjax.core.files import write_json
from mgjax.core.renamed_keys import migrate
from mgjax.core.tree import named_leaves
from mgjax.core.typing import Array, Tree
from mgjax.parallel.shard import Place

TYPES = 'types.json'  # of parameters, in work directories where not all are float32
RECORDED = ('jax', 'flax', 'orbax-checkpoint', 'safetensors', 'numpy')


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
  return ConfigDict(migrate(json.loads(path.read_text())))


def read_config_of(
  workdir: str | os.PathLike[str], component: str, noun: str, hint: str = ''
) -> ConfigDict:
  """Reads the configuration of a run that must be of one component.

  Raises:
    ConfigError: the run was of another component, or there was none.
  """
  config = read_config(workdir)
  if config.component != component:
    raise ConfigError(
      f'{os.fspath(workdir)!r} trained the component {config.component!r}; expected {noun}{hint}'
    )
  return config


def places_of(
  workdir: str | os.PathLike[str], given: str | os.PathLike[str]
) -> tuple[pathlib.Path, pathlib.Path]:
  """Returns where a work directory that another one names may be: there, or moved along with it."""
  return pathlib.Path(given), pathlib.Path(workdir).absolute().parent / pathlib.Path(given).name


def open_checkpoints(
  workdir: str | os.PathLike[str], place: str | None = None, keep: Keep | None = None
) -> Checkpoints:
  """Opens the checkpoints of a run.

  Args:
    workdir: of the run.
    place: an absolute path or a URL, '' for the work directory: `train.checkpoints` of a
      configuration. By default place and `keep` are those of the one in the work directory.
    keep: which checkpoints stay.

  Raises:
    ConfigError: `place` depends on where one stands, or what is to be kept makes no sense.
  """
  if place is None and (pathlib.Path(workdir) / 'config.json').exists():
    train = read_config(workdir).to_dict().get('train') or {}
    place, keep = train.get('checkpoints'), keep_settings(train)
  if place and '://' not in place and not os.path.isabs(place):
    raise ConfigError(
      f'train.checkpoints = {place!r} is a relative path; give an absolute path, a URL such as '
      "gs://bucket/path, or '' for the work directory"
    )
  return Checkpoints(place or pathlib.Path(workdir) / 'checkpoints', keep or Keep())


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


@flax.struct.dataclass
class _Untrained:
  """The items of a checkpoint at step 0: weights that no optimizer has touched."""

  step: Array
  params: Tree
  average: Tree


def write_workdir(
  config: Mapping[str, Any],
  params: Tree,
  notes: Mapping[str, Any],
  workdir: pathlib.Path,
  *,
  origin: Mapping[str, Any],
  loss: float | None = None,
  frozen: bool = False,
) -> None:
  """Makes a work directory as a run of this component would, stopped at step 0.

  Args:
    config: of the component, plain JSON values.
    params: become the parameters and their average.
    notes: what the component keeps beside its weights.
    workdir: without checkpoints.
    origin: joins what the checkpoint keeps, and says where the weights come from; its `order`
      stands where a run says in which order it saw its data.
    loss: of a validation, where it is known.
    frozen: whether nobody trains them: the average alone is written.
  """
  leaves = named_leaves(params)
  write_json(workdir / 'config.json', config)
  write_about(workdir, RECORDED)
  write_json(workdir / 'parameters.json', {name: list(leaf.shape) for name, leaf in leaves.items()})
  types = {name: str(leaf.dtype) for name, leaf in leaves.items()}
  if set(types.values()) != {'float32'}:
    write_json(workdir / TYPES, types)
  params = jax.tree.map(jnp.asarray, params)
  meta = {
    'step': 0,
    'config': dict(config),
    'notes': dict(notes),
    'version': mgjax.__version__,
    **origin,
  }
  trained = {} if frozen else params
  state = _Untrained(step=jnp.zeros((), jnp.int32), params=trained, average=params)
  with open_checkpoints(workdir) as checkpoints:
    checkpoints.save(state, meta, loss)


def write_about(workdir: pathlib.Path, packages: Sequence[str]) -> None:
  """Writes `run.json`: the command that made a work directory, and versions of some packages."""
  versions = {name: importlib.metadata.version(name) for name in packages}
  about = {'mgjax': mgjax.__version__, 'python': sys.version.split()[0], **versions}
  write_json(workdir / 'run.json', {'command': sys.argv, 'versions': about})
