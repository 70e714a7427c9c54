"""Checkpoints that are verified when they are read; the only file that knows orbax.

Orbax writes atomically but does not checksum array data: half of all single-bit flips in a
checkpoint load silently as wrong values. So every leaf's fingerprint is computed on the devices,
stored beside the arrays, and computed again after a restore.

The directory may be a URL, such as `gs://bucket/path`, that orbax can write to (the extra `gcs`).
A checkpoint is one directory `<step>` with the items `params`, `opt_state`, `average`, `opponent`
(those that have leaves) and `meta`, a JSON value `{'record': {'meta', 'leaves'}, 'digest'}`: the
caller's own meta, and for each item each leaf's dtype, shape and fingerprint, under a SHA-256 of
its own.
"""

import hashlib
import json
import logging
import os
import re
from collections.abc import Callable
from typing import Any, Self

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
from etils import epath
from jax.experimental import multihost_utils

from mgjax.core.errors import CheckpointError
from mgjax.core.typing import Array, Tree
from mgjax.train.fingerprints import describe
from mgjax.train.state import State

_ITEMS = ('params', 'opt_state', 'average', 'opponent')
# These say that reading was impossible here and now, not that the files are bad ...
_NOT_DAMAGE = (
  *(MemoryError, PermissionError, ConnectionError, TimeoutError),
  jax.errors.JaxRuntimeError,
)
# ... and so do the errors of these packages, and these words in ValueErrors of tensorstore.
_NETWORK = ('aiohttp', 'gcsfs', 'google', 'requests', 'urllib3')
_UNREACHABLE = re.compile(
  'UNAVAILABLE|DEADLINE_EXCEEDED|UNAUTHENTICATED|PERMISSION_DENIED|RESOURCE_EXHAUSTED'
)

_SMALL = 2**20  # bytes of an array that one device writes by itself

_log = logging.getLogger(__name__)


class _Damaged(Exception):
  """The files of a checkpoint are not what was written."""


class Checkpoints:
  """The checkpoints of one run, in a directory of their own.

  Saving is asynchronous. Restoring verifies every leaf and, if the newest checkpoint is damaged,
  falls back aloud to the one before. Reading alone never changes the directory of a live run:
  what a killed process left half-written is removed by the first save.
  """

  def __init__(self, directory: str | os.PathLike[str], keep: int = 3):
    self.directory = epath.Path(directory if _is_url(directory) else os.path.abspath(directory))
    self._keep = keep
    self._manager: ocp.CheckpointManager | None = None

  def save(self, state: State, meta: dict[str, Any]) -> bool:
    """Starts to write `state` as checkpoint `state.step` and returns once it may be donated.

    Args:
      state: the state; its items without leaves are left out.
      meta: anything that JSON can hold, handed back by the restores.

    Returns:
      False if this step is already there, else True.

    Raises:
      CheckpointError: this save could not begin, or the one before could not be finished.
    """
    step = int(state.step)
    if step in self.steps():
      return False
    items = _items(state)
    leaves = {name: describe(item, values=True) for name, item in items.items()}
    record = json.loads(json.dumps({'meta': meta, 'leaves': leaves}))
    saves = {
      name: ocp.args.PyTreeSave(item) for name, item in items.items() if jax.tree.leaves(item)
    }
    saves['meta'] = ocp.args.JsonSave({'record': record, 'digest': _digest(record)})
    try:
      self._manager = self._manager or _open_manager(self.directory, self._keep)
      saved = self._manager.save(step, args=ocp.args.Composite(**saves))
    except Exception as error:
      raise self._write_error(error) from error
    if not saved:
      raise CheckpointError(
        f'step {step} is older than the newest checkpoint in {self.directory} ({self.steps()[-1]});'
        ' restore that one or use an empty work directory'
      )
    return True

  def begun(self) -> bool:
    """Says whether anything was ever saved, also what was damaged or is half-written."""
    return any(_asked(self.directory, lambda: list(self.directory.glob('*'))))

  def steps(self) -> list[int]:
    """The steps that have a finished checkpoint, ascending; waits for a save on its way."""
    self.wait()

    def find() -> list[int]:
      exists = self.directory.exists()
      return sorted(ocp.utils.checkpoint_steps(self.directory)) if exists else []

    return _asked(self.directory, find)

  def restore(self, abstract_state: State) -> tuple[State, dict[str, Any]] | None:
    """Reads the newest checkpoint that is as it was written.

    Damaged checkpoints newer than that are renamed to `<step>.corrupt`.

    Args:
      abstract_state: jax.ShapeDtypeStructs or arrays; where a leaf has a sharding the restored
        one gets it, else it goes, uncommitted, to the default device.

    Returns:
      The state and the meta it was saved with, or None if there never was a checkpoint.

    Raises:
      CheckpointError: all checkpoints are damaged, or they hold leaves of other names, shapes or
        dtypes than `abstract_state` because they come from another config.
    """
    found = self._read_newest_good(_items(abstract_state))
    if found is None:
      return None
    step, items, meta, damaged = found
    for bad_step in damaged:
      self._set_aside(bad_step)
    count = np.asarray(step, abstract_state.step.dtype)
    return State(step=_place(count, getattr(abstract_state.step, 'sharding', None)), **items), meta

  def restore_params(
    self, abstract_params: Tree, which: str = 'average'
  ) -> tuple[Tree, dict[str, Any]]:
    """Reads only the parameters of the newest good checkpoint, and changes nothing on disk.

    Args:
      abstract_params: as in `restore`.
      which: 'average' for the moving average of the parameters, 'params' for themselves.

    Returns:
      The parameters and the meta they were saved with.

    Raises:
      CheckpointError: there is no checkpoint, none is good, or they come from another config.
    """
    found = self._read_newest_good({which: abstract_params})
    if found is None:
      raise CheckpointError(f'no checkpoint in {self.directory}; train first, or mend the path')
    _, items, meta, _ = found
    return items[which], meta

  def restore_meta(self) -> dict[str, Any]:
    """Reads the meta of the newest checkpoint and none of its arrays.

    Raises:
      CheckpointError: there is no checkpoint, or none is good.
    """
    found = self._read_newest_good({})
    if found is None:
      raise CheckpointError(f'no checkpoint in {self.directory}; train first, or mend the path')
    return found[2]

  def wait(self) -> None:
    """Blocks until the save on its way is safely on disk.

    Raises:
      CheckpointError: it could not be written.
    """
    if self._manager is not None:
      try:
        self._manager.wait_until_finished()
      except Exception as error:
        raise self._write_error(error) from error

  def close(self) -> None:
    """Waits for the save on its way and frees the writer's threads."""
    self.wait()
    if self._manager is not None:
      self._manager.close()
    self._manager = None

  def __enter__(self) -> Self:
    return self

  def __exit__(self, *_: object) -> None:
    self.close()

  def _write_error(self, error: Exception) -> CheckpointError:
    # The manager goes on listing a step that failed to be written: only a new one is right.
    self._manager = None
    return CheckpointError(
      f'cannot write a checkpoint to {self.directory}: {_first_line(error)};'
      ' is the disk full, or the path not a writable directory?'
    )

  def _read_newest_good(
    self, targets: dict[str, Tree]
  ) -> tuple[int, dict[str, Tree], dict[str, Any], list[int]] | None:
    steps, damaged = self.steps(), []
    for step in reversed(steps):
      try:
        return step, *_read(self.directory / str(step), targets), damaged
      except _Damaged as error:
        _log.warning('checkpoint of step %d in %s is damaged: %s', step, self.directory, error)
        damaged.append(step)
    # Checkpoints set aside count: a run must never silently begin again beside them.
    aside = list(self.directory.glob('*.corrupt*'))
    if not steps and not aside:
      return None
    raise CheckpointError(
      f'no checkpoint in {self.directory} is good: {len(steps)} damaged (steps {steps}; the log'
      f' says how), {len(aside)} set aside before; bring the directory back from a backup, or'
      ' begin anew in an empty work directory'
    )

  def _set_aside(self, step: int) -> None:
    if jax.process_index() == 0:
      target = self.directory / f'{step}.corrupt'
      while target.exists():
        target = target.with_name(f'{target.name}-again')
      (self.directory / str(step)).rename(target)
      _log.warning('renamed the damaged checkpoint of step %d to %s', step, target.name)
    if jax.process_count() > 1:
      multihost_utils.sync_global_devices(f'checkpoint {step} set aside')
    self._manager = None  # a manager remembers the steps it once saw, and would refuse this one


def _is_url(directory: str | os.PathLike[str]) -> bool:
  return '://' in os.fspath(directory)


def _asked(directory: epath.Path, question: Callable[[], Any]) -> Any:
  """Asks about a directory; without a way to its URL nothing may pass for an empty one."""
  try:
    return question()
  except Exception as error:
    if not _is_url(directory):
      raise
    problem = f'{type(error).__name__}: {_first_line(error)}'
    raise CheckpointError(
      f'cannot look for checkpoints at {directory} ({problem}); mend the URL, the credentials or'
      ' the connection; gs:// needs `pip install mgjax[gcs]`'
    ) from error


def _open_manager(directory: epath.Path, keep: int) -> ocp.CheckpointManager:
  options = ocp.CheckpointManagerOptions(
    preservation_policy=ocp.checkpoint_managers.LatestN(keep),
    cleanup_tmp_directories=True,
    enable_async_checkpointing=True,
  )
  # Float weights hardly compress (8 %), and without compression they are written 2-4x faster.
  # What every device holds whole, orbax cuts so that each writes a piece: of small arrays the cuts
  # cost more than they save.
  arrays = ocp.type_handlers.ArrayHandler(min_slice_bytes_for_replica_parallel=_SMALL)
  registry = ocp.type_handlers.create_type_handler_registry((jax.Array, arrays))
  handlers = {
    name: ocp.PyTreeCheckpointHandler(use_compression=False, type_handler_registry=registry)
    for name in _ITEMS
  }
  handlers['meta'] = ocp.JsonCheckpointHandler()
  return ocp.CheckpointManager(directory, options=options, item_handlers=handlers)


def _items(state: State) -> dict[str, Tree]:
  return {name: getattr(state, name) for name in _ITEMS}


def _digest(record: dict[str, Any]) -> str:
  return hashlib.sha256(json.dumps(record, sort_keys=True).encode()).hexdigest()


def _read(path: epath.Path, targets: dict[str, Tree]) -> tuple[dict[str, Tree], dict[str, Any]]:
  """The items of one checkpoint and its meta; raises _Damaged if they are not what was saved."""
  record = _everywhere(_load_record, path)
  for name, target in targets.items():
    _check_same_leaves(path, name, record['leaves'].get(name, {}), target)
  requests = {
    name: ocp.args.PyTreeRestore(target, restore_args=jax.tree.map(_restore_args, target))
    for name, target in targets.items()
    if jax.tree.leaves(target)  # orbax refuses to save an item without leaves
  }
  loaded = _everywhere(_load, path, **requests) if requests else {}  # orbax would read everything
  items = {name: jax.tree.map(_place, loaded.get(name, targets[name])) for name in targets}
  for name in targets:
    _check_same_values(name, record['leaves'].get(name, {}), items[name])
  return items, record['meta']


def _everywhere(load: Callable[..., Any], path: epath.Path, **requests: Any) -> Any:
  """What `load` returns; raises _Damaged on all hosts if files are bad for any one of them."""
  loaded, problem = None, None
  try:
    loaded = load(path, **requests)
  except _NOT_DAMAGE:
    raise
  except Exception as error:  # orbax raises bare Exceptions, KeyErrors, ValueErrors, JSON errors
    package = type(error).__module__.partition('.')[0]
    if package in _NETWORK or _UNREACHABLE.search(str(error)):
      raise
    problem = f'{type(error).__name__}: {_first_line(error)}'
  if jax.process_count() > 1:
    well = multihost_utils.process_allgather(np.asarray(problem is None))
    if not well.all():
      problem = problem or f'read well here, but not by process {int(np.argmin(well))}'
  if problem is not None:
    raise _Damaged(problem)
  return loaded


def _load(path: epath.Path, **requests: Any) -> Any:
  # Each process reads for itself: with orbax's own barriers, a process that cannot read its part
  # would leave the others waiting. `_everywhere` brings them together again.
  alone = ocp.options.MultiprocessingOptions(
    primary_host=None,
    active_processes={jax.process_index()},
    barrier_sync_key_prefix=f'reader{jax.process_index()}',
  )
  handler = ocp.CompositeCheckpointHandler(
    composite_options=ocp.CompositeOptions(multiprocessing_options=alone)
  )
  with ocp.Checkpointer(handler, multiprocessing_options=alone) as reader:
    return reader.restore(path, args=ocp.args.Composite(**requests))


def _load_record(path: epath.Path) -> dict[str, Any]:
  stored = _load(path, meta=ocp.args.JsonRestore())['meta']
  if _digest(stored['record']) != stored['digest']:
    raise _Damaged('the meta does not have the digest stored with it')
  return stored['record']


def _restore_args(leaf: Any) -> ocp.RestoreArgs:
  sharding = getattr(leaf, 'sharding', None)
  if sharding is None:
    return ocp.RestoreArgs(restore_type=np.ndarray, dtype=leaf.dtype)
  return ocp.ArrayRestoreArgs(sharding=sharding, global_shape=leaf.shape, dtype=leaf.dtype)


def _place(value: Any, sharding: Any = None) -> Array:
  return jnp.asarray(value) if sharding is None else jax.device_put(value, sharding)


def _first_line(error: Exception) -> str:
  return (str(error).splitlines() or [''])[0][:200]


def _check_same_leaves(
  path: epath.Path, name: str, saved: dict[str, list[Any]], target: Tree
) -> None:
  """Raises CheckpointError if the config that saved differs from the one that restores."""
  wanted = describe(target, values=False)
  found = {leaf: description[:2] for leaf, description in saved.items()}
  wrong = sorted(
    leaf for leaf in wanted.keys() | found.keys() if wanted.get(leaf) != found.get(leaf)
  )
  if wrong:
    given, expected = (
      f'{tree[wrong[0]][0]} {tuple(tree[wrong[0]][1])}' if wrong[0] in tree else 'no such leaf'
      for tree in (found, wanted)
    )
    raise CheckpointError(
      f'the checkpoint {path} does not fit this config: leaf {name}/{wrong[0]} is {given} in the'
      f' checkpoint, expected {expected} ({len(wrong)} leaves of {name} differ); use the config it'
      ' was trained with, or another work directory'
    )


def _check_same_values(name: str, saved: dict[str, list[Any]], tree: Tree) -> None:
  read = describe(tree, values=True)
  wrong = sorted(leaf for leaf in read if read[leaf] != saved[leaf])
  if wrong:
    raise _Damaged(
      f'leaf {name}/{wrong[0]} has fingerprint {read[wrong[0]][2]:#010x}, expected'
      f' {saved[wrong[0]][2]:#010x} ({len(wrong)} leaves of {name} differ)'
    )
