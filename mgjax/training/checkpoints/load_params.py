"""Loads the parameters of runs, with or without their adapters, and describes them."""

import os
import pathlib
from collections.abc import Mapping
from typing import Any

import jax

from mgjax.core.configuration.keys import JSON, Fields, did_you_mean
from mgjax.core.errors import ConfigError
from mgjax.core.precision import BASE
from mgjax.core.tree import named_leaves, nest, subtrees, within
from mgjax.core.typing import Tree
from mgjax.nn import lora
from mgjax.parallel.shard import Place
from mgjax.training.checkpoints.find_run import read_needed
from mgjax.training.checkpoints.fingerprints import Descriptions, describe_leaves, fingerprint_of
from mgjax.training.checkpoints.workdir import open_checkpoints, read_config


def read_shapes(workdir: str | os.PathLike[str]) -> dict[str, list[int]]:
  """Reads the shape of every parameter of a run, by name, from its newest good checkpoint."""
  saved = open_checkpoints(workdir).restore_record()['leaves']['average']
  return {name: shape for name, (_, shape, _) in saved.items()}


def describe_average(workdir: str | os.PathLike[str], subtree: str = '') -> Descriptions:
  """Returns dtype, shape and fingerprint of every averaged parameter in a subtree of a run."""
  leaves = open_checkpoints(workdir).restore_record()['leaves']['average']
  if not all(fingerprint for *_, fingerprint in leaves.values()):  # a file of weights has none
    leaves = describe_leaves(load_params(workdir)[0], values=True)
  prefix = f'{subtree}/' if subtree else ''
  return {n.removeprefix(prefix): leaves[n] for n in leaves if n.startswith(prefix)}


def digest_of(workdir: str | os.PathLike[str]) -> str:
  """Returns the fingerprint of all averaged parameters of a run."""
  return fingerprint_of(describe_average(workdir))


def load_params(
  workdir: str | os.PathLike[str],
  which: str = 'average',
  sharding_of: Place | None = None,
  step: int | None = None,
  subtree: str = '',
) -> tuple[Tree, JSON]:
  """Reads the averaged parameters of a run as they were saved, and the checkpoint's meta.

  For a run that trained adapters (`nn/lora.py`), these are the parameters of its model with the
  adapters merged.

  Args:
    workdir: of the run.
    which: 'average' or 'params'.
    sharding_of: name and shape of a parameter -> its sharding; by default all go to one device.
    step: of the checkpoint; by default the newest good one.
    subtree: as 'backbone/layers'; nothing else is read.

  Raises:
    CheckpointError: there is no valid checkpoint.
    ConfigError: there are no parameters of that subtree.
  """
  params, meta = open_checkpoints(workdir).restore_params(
    lambda saved: _unflatten(saved, sharding_of, subtree), which, step
  )
  if lora.is_adapters(named_leaves(params)):
    params = _with_base(workdir, params, meta, sharding_of, subtree)
  return params, meta


def load_adapters(
  workdir: str | os.PathLike[str], which: str = 'average', step: int | None = None
) -> tuple[Tree, JSON]:
  """Reads the adapters of a run that trained adapters, and the checkpoint's meta.
  Raises ConfigError if it trained parameters, and CheckpointError as `load_params` does.
  """
  params, meta = open_checkpoints(workdir).restore_params(
    lambda saved: _unflatten(saved, None, ''), which, step
  )
  if not lora.is_adapters(named_leaves(params)):
    raise ConfigError(
      f'{os.fspath(workdir)!r} trained all parameters of its model; expected a run of adapters, '
      'with config.lora.rank above 0'
    )
  return params, meta


def load_base(
  start_from: Any, what: str, sharding_of: Place | None = None
) -> tuple[Tree, dict[str, Any]]:
  """Reads the parameters of the model that adapters change, as `load_params` does.

  `start_from` is `config.start_from`. `what` begins the message, as in 'adapters train'. Raises
  ConfigError if `start_from` names no run.
  """
  if not start_from or not isinstance(start_from, str) or '=' in start_from:
    raise ConfigError(
      f'{what} with config.start_from = {start_from!r}; expected the work directory of the model '
      'that they change, as in --config.start_from=digits/video'
    )
  return load_params(start_from, sharding_of=sharding_of)


def identity_of(base: Tree, meta: Fields) -> JSON:
  """Returns the note (`BASE`) by which a run of adapters identifies the model that it changes."""
  return {'fingerprint': fingerprint_of({}, base), 'step': meta['step']}


def _with_base(
  workdir: str | os.PathLike[str],
  adapters: Tree,
  meta: Mapping[str, Any],
  sharding_of: Place | None,
  subtree: str,
) -> Tree:
  """Merges the adapters of a run into the parameters of the model that they were trained for."""

  def read(path: pathlib.Path) -> tuple[Tree, list[str]]:
    params, _ = load_params(path, sharding_of=sharding_of)
    return params, [fingerprint_of({}, params)]

  config = read_config(workdir).to_dict()
  recorded = meta['notes'][BASE]['fingerprint']
  base = read_needed(workdir, config['start_from'], 'the model', recorded, read)
  merged = named_leaves(lora.merge(adapters, base, lora.scale_of(config, adapters)))
  return nest({name: leaf for name, leaf in merged.items() if within(name, subtree)})


def _unflatten(saved: Descriptions, sharding_of: Place | None, subtree: str) -> Tree:
  leaves = {}
  for name, (dtype, shape, _) in saved.items():
    if within(name, subtree):
      sharding = None if sharding_of is None else sharding_of(name, tuple(shape))
      leaves[name] = jax.ShapeDtypeStruct(tuple(shape), dtype, sharding=sharding)
  if not leaves:
    hint = did_you_mean(subtree, [*subtrees(saved), *saved]).partition('; ')[2]
    tops = ', '.join(sorted({name.split('/')[0] for name in saved}))
    raise ConfigError(f'it has no parameters {subtree!r}; {hint or f"it has {tops}"}')
  return nest(leaves)
