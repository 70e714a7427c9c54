"""Models into work directories, as of a run that stopped at step 0."""

import importlib.metadata
import pathlib
import sys
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from ml_collections import ConfigDict

import mgjax
from mgjax.checkpoints.workdir import TYPES, open_checkpoints
from mgjax.core.files import write_json
from mgjax.core.tree import named_leaves
from mgjax.core.typing import Tree
from mgjax.training.state import State

RECORDED = ('jax', 'flax', 'orbax-checkpoint', 'safetensors', 'numpy')


def write_workdir(
  config: ConfigDict,
  params: Tree,
  notes: Mapping[str, Any],
  workdir: pathlib.Path,
  *,
  origin: Mapping[str, Any],
  loss: float | None = None,
  frozen: bool = False,
) -> None:
  """Makes a work directory that serves whatever reads that of a run of this part.

  Args:
    config: of the part.
    params: become the parameters and their average.
    notes: what the part keeps beside its weights.
    workdir: without checkpoints.
    origin: joins what the checkpoint keeps, and says where the weights come from; its `order`
      stands where a run says in which order it saw its data.
    loss: of a validation, where it is known.
    frozen: whether nobody trains them: the average alone is written.
  """
  leaves = named_leaves(params)
  write_json(workdir / 'config.json', config.to_dict())
  write_about(workdir, RECORDED)
  write_json(workdir / 'parameters.json', {name: list(leaf.shape) for name, leaf in leaves.items()})
  types = {name: str(leaf.dtype) for name, leaf in leaves.items()}
  if set(types.values()) != {'float32'}:
    write_json(workdir / TYPES, types)
  params = jax.tree.map(jnp.asarray, params)
  meta = {
    'step': 0,
    'config': config.to_dict(),
    'notes': dict(notes),
    'version': mgjax.__version__,
    **origin,
  }
  trained = {} if frozen else params
  state = State(step=jnp.zeros((), jnp.int32), params=trained, opt_state={}, average=params)
  with open_checkpoints(workdir, config.train) as checkpoints:
    checkpoints.save(state, meta, loss)


def write_about(workdir: pathlib.Path, packages: Sequence[str]) -> None:
  """Writes `run.json`: the command that made a work directory, and versions of some packages."""
  versions = {name: importlib.metadata.version(name) for name in packages}
  about = {'mgjax': mgjax.__version__, 'python': sys.version.split()[0], **versions}
  write_json(workdir / 'run.json', {'command': sys.argv, 'versions': about})
