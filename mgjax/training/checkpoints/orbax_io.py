"""The files of one checkpoint; the only module that uses orbax.

Orbax writes atomically but does not checksum array data: half of all single-bit flips in a
checkpoint load silently as wrong values. So every leaf's fingerprint is computed on the devices,
stored beside the arrays, and computed again after a restore.

A checkpoint is one directory `<step>`. It has an item for every field of the state that has leaves
(`params`, `opt_state`, `average`, `discriminator`, ...), and `meta`, a JSON value
`{'record': {'step', 'meta', 'loss', 'leaves'}, 'digest'}`. The record has the caller's own meta,
the validation loss if known, and each item's leaves with dtype, shape and fingerprint. The digest
is a SHA-256 of the record.
"""

import dataclasses
import errno
import hashlib
import json
import logging
import os
import re
import stat
import traceback
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import jax
import numpy as np
from etils import epath
from jax.experimental import multihost_utils

from mgjax.core.configuration.keys import JSON, Fields
from mgjax.core.errors import CheckpointError, first_line
from mgjax.core.plug_ins import Later
from mgjax.core.settings import Checked, Count, Positive, annotations, unpack
from mgjax.core.typing import Array, Tree
from mgjax.training.checkpoints.fingerprints import (
  Damaged,
  Descriptions,
  check_same_leaves,
  check_same_values,
  describe_leaves,
  leaf_bytes,
)
from mgjax.training.checkpoints.folders import REMOVED, find_denied, size_and_time

if TYPE_CHECKING:
  import orbax.checkpoint as ocp
else:
  ocp = Later('orbax.checkpoint')  # a fifth of a second of every start, for checkpoints alone

# Fields of a state that every checkpoint has. Later ones begin at zero where it lacks them.
_ALWAYS = ('params', 'opt_state', 'average', 'discriminator')
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

_MARKS = ('orbax', 'OCDBT', 'zarr')  # of paths, and of messages of orbax's futures
_RECORD = 'metadata'  # the file of the item `meta`, which is orbax's default too
_SMALL = 2**20  # bytes of an array that one device writes by itself
_FILE = 2**31  # bytes of a file, if no leaf is larger
_PORTION = 2**30  # bytes of leaves that a verification reads at once

Losses = Callable[[int], float | None]
Make = Callable[[Descriptions], Tree]  # of the leaves that an item was saved with
Target = Tree | Make

_log = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class Keep(Checked):
  """Which checkpoints stay when a new one is written: those that any of the three asks for."""

  keep: Positive = 3  # so many of the newest
  keep_every: Count = 0  # those whose step is a multiple of it, for ever; 0 for none
  keep_best: Count = 0  # so many of those with the lowest validation losses; 0 for none


def keep_settings(train: Fields) -> Keep:
  """Makes a `Keep` from a configuration's `train`, whose other keys it leaves alone."""
  return unpack(Keep, {key: train[key] for key in annotations(Keep) if key in train}, 'train')


class _WithLosses:
  """A policy of orbax that sees validation losses, from wherever they are known."""

  def __init__(self, policy: Any, losses: Losses):
    self._policy, self._losses = policy, losses

  def should_preserve(self, checkpoints: Sequence[Any], *, context: Any) -> Sequence[bool]:
    known = [dataclasses.replace(info, metrics=self._losses(info.step)) for info in checkpoints]
    return self._policy.should_preserve(known, context=context)


def _policy(keep: Keep, losses: Losses) -> Any:
  policies = ocp.checkpoint_managers
  parts: list[Any] = [policies.LatestN(keep.keep)]
  if keep.keep_every:
    parts.append(policies.EveryNSteps(keep.keep_every))
  if keep.keep_best:
    best = policies.BestN(
      get_metric_fn=float, reverse=True, n=keep.keep_best, keep_checkpoints_without_metrics=False
    )
    parts.append(_WithLosses(best, losses))
  return policies.AnyPreservationPolicy(parts)


@dataclasses.dataclass
class _Info:
  """What orbax's policies ask of a checkpoint."""

  step: int
  metrics: float | None = None


def steps_to_keep(steps: Sequence[int], keep: Keep, losses: Losses) -> list[int]:
  """Returns those of ascending `steps` that stay, by the policy that writing has too."""
  context = ocp.checkpoint_managers.PreservationContext()
  infos = [_Info(step) for step in steps]
  stays = _policy(keep, losses).should_preserve(infos, context=context)
  return [step for step, stay in zip(steps, stays, strict=True) if stay]


def finished_steps(directory: epath.Path) -> list[int]:
  """Returns the steps that have a finished checkpoint, ascending."""
  return sorted(ocp.utils.checkpoint_steps(directory)) if directory.exists() else []


def open_manager(
  directory: epath.Path,
  names: Sequence[str],
  keep: Keep,
  losses: Losses,
  fail: Callable[[Exception], None],
) -> 'ocp.CheckpointManager':
  """Opens what writes checkpoints and deletes old ones; removes what is half-written.

  `names` are those of the items, `losses` that of the validation of each step, None if not known;
  `fail` hears at once of what this process cannot write.
  """
  options = ocp.CheckpointManagerOptions(
    preservation_policy=_policy(keep, losses),
    cleanup_tmp_directories=True,
    todelete_subdir=None if '://' in os.fspath(directory) else REMOVED,
    enable_async_checkpointing=True,
  )
  # Float weights hardly compress (8 %), and without compression they are written 2-4x faster.
  # What every device holds whole, orbax cuts so that each writes a piece: of small arrays the cuts
  # cost more than they save.
  arrays = ocp.type_handlers.ArrayHandler(min_slice_bytes_for_replica_parallel=_SMALL)
  registry = ocp.type_handlers.create_type_handler_registry((jax.Array, arrays))
  handlers: dict[str, ocp.AsyncCheckpointHandler] = {
    name: ocp.PyTreeCheckpointHandler(use_compression=False, type_handler_registry=registry)
    for name in names
  }
  handlers['meta'] = ocp.JsonCheckpointHandler(_RECORD)
  for handler in handlers.values():
    handler.async_save = _telling(handler.async_save, fail)
  manager = ocp.CheckpointManager(directory, options=options, item_handlers=handlers)
  # Its step would count as a poll of training/monitoring/signals.py: all would stop at that one,
  # far ahead.
  manager.reached_preemption = lambda step: False
  return manager


def _telling(save: Callable[..., Any], fail: Callable[[Exception], None]) -> Callable[..., Any]:
  # Of several processes one that fails goes to another barrier of orbax's than those that do not:
  # all of them would wait for twenty minutes.
  class Writing:
    def __init__(self, future: Any):
      self._future = future

    def result(self, timeout: float | None = None) -> Any:
      try:
        return self._future.result(timeout)
      except Exception as error:
        fail(error)
        raise

  async def telling(*args: Any, **kwargs: Any) -> list[Writing]:
    return [Writing(future) for future in await save(*args, **kwargs) or ()]

  return telling


def begin_write(
  manager: 'ocp.CheckpointManager',
  step: int,
  items: Mapping[str, Tree],
  meta: JSON,
  loss: float | None,
) -> bool:
  """Starts to write a checkpoint; returns False where the manager has a newer one."""
  leaves = {name: describe_leaves(item, values=True) for name, item in items.items()}
  record = json.loads(json.dumps({'step': step, 'meta': meta, 'loss': loss, 'leaves': leaves}))
  saves: JSON = {
    name: ocp.args.PyTreeSave(item, ocdbt_target_data_file_size=_file_size(item))
    for name, item in items.items()
    if jax.tree.leaves(item)
  }
  saves['meta'] = ocp.args.JsonSave({'record': record, 'digest': _digest(record)})
  return manager.save(step, args=ocp.args.Composite(**saves))


def _file_size(item: Tree) -> int:
  """Returns how large the files of an item may become: at least as large as its largest leaf.

  Orbax cuts larger arrays into chunks, which takes a copy of them in memory.
  """
  return max(_FILE, *(leaf.nbytes for leaf in jax.tree.leaves(item)))


def _digest(record: JSON) -> str:
  return hashlib.sha256(json.dumps(record, sort_keys=True).encode()).hexdigest()


def read_items(
  path: epath.Path, targets: Mapping[str, Target], cast: bool = False
) -> tuple[dict[str, Tree], JSON]:
  """Reads items of one checkpoint and its record.

  Targets are abstract items, or functions that make them from the saved leaves; see `Checkpoints`.
  With `cast` leaves of another floating type are verified, and then cast to that of their target.
  Raises Damaged if the files are not what was saved, on this host or another one, or
  CheckpointError if the targets have leaves of other names, shapes or dtypes.
  """
  record = on_all_hosts(read_record, path)
  saved = record['leaves']
  items = {}
  partial = {
    name: _make_target(f'{path}', name, saved, make)
    for name, make in targets.items()
    if callable(make)
  }
  targets = {**targets, **partial}
  for name, target in partial.items():
    leaves = describe_leaves(target, values=False)
    saved = saved | {name: {leaf: saved[name][leaf] for leaf in leaves}}
  later = [name for name in targets if name not in saved and name not in _ALWAYS]
  for name in later:
    if jax.tree.leaves(targets[name]):
      _log.info('the checkpoint %s is of before there was %s, which begins at zero', path, name)
    items[name] = jax.tree.map(
      lambda leaf: put(np.zeros(leaf.shape, leaf.dtype), getattr(leaf, 'sharding', None)),
      targets[name],
    )
  typed = {
    name: check_same_leaves(f'{path}', name, saved.get(name, {}), target, cast)
    for name, target in targets.items()
    if name not in later
  }
  requests = {
    name: ocp.args.PyTreeRestore(
      target, restore_args=jax.tree.map(_restore_args, target), partial_restore=name in partial
    )
    for name, target in typed.items()
    if jax.tree.leaves(target)  # orbax refuses to save an item without leaves
  }
  loaded = on_all_hosts(_load, path, **requests) if requests else {}  # orbax would read everything
  for name, target in typed.items():
    item = jax.tree.map(put, loaded.get(name, target))
    check_same_values(name, saved.get(name, {}), item)
    items[name] = jax.tree.map(lambda x, target: x.astype(target.dtype), item, targets[name])
  return {name: items[name] for name in targets}, record


def _make_target(where: str, name: str, saved: Mapping[str, Descriptions], make: Make) -> Tree:
  if not saved.get(name):
    available = ', '.join(item for item, leaves in saved.items() if leaves)
    raise CheckpointError(f'the checkpoint {where} keeps no {name}; it has {available}')
  return make(saved[name])


def verify_checkpoint(path: epath.Path) -> None:
  """Reads all of a checkpoint, some leaves at a time, without its model. Raises Damaged."""
  for name, saved in on_all_hosts(read_record, path)['leaves'].items():
    if not saved:
      continue
    tree = on_all_hosts(_structure, path, name)
    leaves, structure = jax.tree.flatten(tree)
    names = list(describe_leaves(tree, values=False))
    if sorted(names) != sorted(saved):
      raise Damaged(f'{name} has other leaves than were saved')
    for portion in _portions([leaf_bytes(saved[leaf]) for leaf in names]):
      targets: list[object] = [ocp.PLACEHOLDER] * len(leaves)
      for index in portion:
        targets[index] = jax.ShapeDtypeStruct(saved[names[index]][1], saved[names[index]][0])
      item = jax.tree.unflatten(structure, targets)
      restore_args = jax.tree.unflatten(
        structure, [ocp.RestoreArgs(restore_type=np.ndarray)] * len(leaves)
      )
      request = {name: ocp.args.PyTreeRestore(item, restore_args=restore_args)}
      values = jax.tree.leaves(on_all_hosts(_load, path, **request)[name])
      read_now = {names[index]: values[index] for index in portion}
      check_same_values(name, {leaf: saved[leaf] for leaf in read_now}, read_now)


def check_files(path: epath.Path) -> JSON:
  """Returns the record of a checkpoint that has all its files, unread; raises Damaged if not."""
  record = read_record(path)
  for name, saved in record['leaves'].items():
    if not saved:
      continue
    on_disk = describe_leaves(_structure(path, name), values=False)
    if on_disk != {leaf: description[:2] for leaf, description in saved.items()}:
      raise Damaged(f'{name} has other leaves than were saved')
    size = size_and_time(path / name)[0]
    expected = sum(map(leaf_bytes, saved.values()))
    if size < expected:
      raise Damaged(f'{name} has {size} bytes for leaves of {expected}')
  return record


def _portions(sizes: Sequence[int]) -> list[list[int]]:
  """Returns consecutive indices in groups of at most `_PORTION` bytes, or of one leaf."""
  portions: list[list[int]] = []
  room = 0
  for index, size in enumerate(sizes):
    if not portions or size > room:
      portions.append([])
      room = _PORTION
    portions[-1].append(index)
    room -= size
  return portions


def on_all_hosts(
  load: Callable[..., object], path: epath.Path, *rest: object, **requests: object
) -> Any:
  """Returns what `load` does; raises Damaged on all hosts if files are bad for any one of them."""
  loaded = None
  problem = None
  try:
    loaded = load(path, *rest, **requests)
  except Exception as error:  # orbax raises bare Exceptions, KeyErrors, ValueErrors, JSON errors
    package = type(error).__module__.partition('.')[0]
    if denied := find_denied(path):
      raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), denied) from error
    unreachable = package in _NETWORK or _UNREACHABLE.search(str(error))
    if unreachable or isinstance(error, _NOT_DAMAGE):
      raise
    known = isinstance(error, Damaged)
    problem = str(error) if known else f'{type(error).__name__}: {first_line(error)}'
  if jax.process_count() > 1:
    succeeded = multihost_utils.process_allgather(np.asarray(problem is None))
    if not succeeded.all():
      problem = problem or f'read well here, but not by process {int(np.argmin(succeeded))}'
  if problem is not None:
    raise Damaged(problem)
  return loaded


def _alone() -> 'ocp.options.MultiprocessingOptions':
  # Each process reads for itself. With orbax's own barriers, a process that cannot read its part
  # would leave the others waiting. `on_all_hosts` synchronises them after the read.
  return ocp.options.MultiprocessingOptions(
    primary_host=None,
    active_processes={jax.process_index()},
    barrier_sync_key_prefix=f'reader{jax.process_index()}',
  )


def _load(path: epath.Path, **requests: object) -> Any:
  alone = _alone()
  options = ocp.CompositeOptions(multiprocessing_options=alone)
  handler = ocp.CompositeCheckpointHandler(composite_options=options)
  with ocp.Checkpointer(handler, multiprocessing_options=alone) as reader:
    return reader.restore(path, args=ocp.args.Composite(**requests))


def _structure(path: epath.Path, name: str) -> Tree:
  """Returns an item as a tree of leaves with `shape` and `dtype`."""

  class Shapes(ocp.type_handlers.ArrayHandler):
    """Reads only the shapes of JAX arrays, not the shardings that they were saved with."""

    async def metadata(self, infos: Sequence[Any]) -> Sequence[object]:
      return await ocp.type_handlers.NumpyHandler().metadata(infos)

  registry = ocp.type_handlers.create_type_handler_registry((jax.Array, Shapes()))
  handler = ocp.PyTreeCheckpointHandler(
    multiprocessing_options=_alone(), type_handler_registry=registry
  )
  metadata: Any = handler.metadata(path / name)
  return metadata.tree


def read_record(path: epath.Path) -> JSON:
  """Reads the record of a checkpoint. A damaged file may raise any exception."""
  if '://' not in os.fspath(path):
    for folder, _, names in os.walk(path):
      for name in names:
        if not stat.S_ISREG(os.stat(file := os.path.join(folder, name)).st_mode):
          raise Damaged(f'{file!r} is no regular file')  # reading a pipe would block for ever
  # Not with orbax: to read one JSON value, it starts an event loop and threads.
  stored = json.loads((path / 'meta' / _RECORD).read_text())
  if _digest(record := stored['record']) != stored['digest']:
    raise Damaged('the meta does not have the digest stored with it')
  step = record.get('step', record['meta'].get('step'))  # old records have it in their meta
  if step is not None and str(step) != path.name:
    raise Damaged(f'the folder {path.name!r} holds what was saved as step {step}')
  return record


def _restore_args(leaf: Tree) -> 'ocp.RestoreArgs':
  sharding = getattr(leaf, 'sharding', None)
  if sharding is None:
    return ocp.RestoreArgs(restore_type=np.ndarray, dtype=leaf.dtype)
  return ocp.ArrayRestoreArgs(sharding=sharding, global_shape=leaf.shape, dtype=leaf.dtype)


def put(value: Any, sharding: Any = None) -> Array:
  """Puts an array on devices by `sharding`; by default on the default device, uncommitted."""
  is_placed = sharding is None and isinstance(value, jax.Array)
  return value if is_placed else jax.device_put(value, sharding)


def _is_of_others(record: logging.LogRecord) -> bool:
  """Filters out log records with tracebacks from orbax, or from tasks of asyncio that it started.

  Their errors, such as a full disk, reach the caller as exceptions, which mgjax reports itself.
  """
  if not record.exc_info or not record.exc_info[1]:
    return True
  texts = [frame.filename for frame in traceback.extract_tb(record.exc_info[2])]
  texts += [record.pathname, str(record.exc_info[1])]
  return not any(mark in text for mark in _MARKS for text in texts)


for _name in ('absl', 'asyncio'):
  logging.getLogger(_name).addFilter(_is_of_others)
