"""Saves, keeps, verifies and restores the checkpoints of a run.

They lie in a directory of their own, which may be a URL, such as `gs://bucket/path`, that orbax can
write to (the extra `gcs`); `orbax_io.py` says what is in each.
"""

import contextlib
import logging
import math
import os
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Self, TypeVar

import jax
import numpy as np
from etils import epath
from jax.experimental import multihost_utils

from mgjax.core.configuration.keys import JSON
from mgjax.core.errors import CheckpointError, first_line
from mgjax.core.typing import Tree
from mgjax.parallel.distributed import lost_peer
from mgjax.training.checkpoints.fingerprints import Damaged
from mgjax.training.checkpoints.folders import sweep
from mgjax.training.checkpoints.orbax_io import (
  Keep,
  Target,
  begin_write,
  check_files,
  finished_steps,
  on_all_hosts,
  open_manager,
  put,
  read_items,
  read_record,
  verify_checkpoint,
)

T = TypeVar('T')

ASIDE = '.corrupt'  # how the name of a damaged checkpoint ends, once it is set aside
_PATIENCE = 60  # seconds for a save, where this process failed and others may have too
_NONE, _NONE_GOOD, _UNKNOWN = -1, -2, -3  # what the first process may say instead of a step

_log = logging.getLogger(__name__)


class Checkpoints:
  """The checkpoints of one run, in a directory of their own.

  Saving is asynchronous. Restoring verifies every leaf and, if the newest checkpoint is damaged,
  logs it and falls back to the one before. Reading alone never changes the directory of a live run:
  what a killed process left half-written is removed by the first save. Of several processes the
  first one says which steps there are: a shared file system may show them different ones.
  """

  MEND = 'a run that goes on sets such aside and begins at the newest good one'

  def __init__(self, directory: str | os.PathLike[str], keep: Keep | int = 3):
    """Opens a path or URL, which need not be there yet; a number `keep` is that of the newest."""
    self.directory = epath.Path(directory if _is_url(directory) else os.path.abspath(directory))
    self.keep = Keep(keep) if isinstance(keep, int) else keep
    self._losses: dict[int, float | None] = {}
    self._manager: Any = None
    self._failed: list[Exception] = []
    self._sweeping: threading.Thread | None = None

  def save(self, state: Tree, meta: JSON, loss: float | None = None) -> bool:
    """Starts to write `state` as checkpoint `state.step` and returns once it may be donated.

    Other fields of this Flax dataclass are the items; those without leaves are left out. `meta`,
    anything that JSON can hold, is handed back by the restores; `loss` is that of the validation at
    this step, the lower the better. Returns False if this step is already there. Raises
    CheckpointError if this save could not begin, or the one before could not be finished.
    """
    step = int(state.step)
    items = _items(state)
    self.wait()
    if (there := _first_says(lambda: int(step in self.steps()))) == _UNKNOWN:
      raise self._unknown()
    if there:
      return False
    self._losses[step] = loss
    # Deleting a large checkpoint takes a while; what a killed process left is there from before.
    self._sweeping = threading.Thread(target=sweep, args=(self.directory,), name='sweep')
    self._sweeping.start()
    with self._writing():
      if self._manager is None:
        self._sweeping.join()
        self._failed.clear()
        self._manager = open_manager(
          self.directory, list(items), self.keep, self.loss_of, self._failed.append
        )
      saved = begin_write(self._manager, step, items, meta, loss)
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
    return _asked(self.directory, lambda: finished_steps(self.directory))

  def path_of(self, step: int) -> epath.Path:
    """Returns where the checkpoint of a step lies. Raises CheckpointError if there is none."""
    if step not in (steps := self.steps()):
      raise CheckpointError(f'no checkpoint of step {step} in {self.directory}; it has {steps}')
    return self.directory / str(step)

  def look_at(self, step: int) -> JSON:
    """Returns what a step says of itself; raises Damaged if not all its files are there."""
    return on_all_hosts(check_files, self.directory / str(step))

  def verify(self, step: int) -> None:
    """Reads all of a step, whatever model it is of. Raises Damaged if it is not as written."""
    verify_checkpoint(self.path_of(step))

  def loss_of(self, step: int) -> float | None:
    """Returns the validation loss that a step was saved with; None if there was none."""
    if step not in self._losses:
      try:
        self._losses[step] = read_record(self.directory / str(step)).get('loss')
      except Exception:  # of any kind: reading that checkpoint will say that it is damaged
        self._losses[step] = None
    loss = self._losses[step]
    return loss if loss is not None and np.isfinite(loss) else None

  def restore(self, abstract_state: Tree) -> tuple[Tree, JSON] | None:
    """Reads state and meta of the newest checkpoint that is as it was written; None without any.

    Damaged checkpoints newer than that are renamed to `<step>.corrupt`. Where a leaf of
    `abstract_state`, a jax.ShapeDtypeStruct or an array, has a sharding the restored one gets it,
    else it goes, uncommitted, to the default device. Raises CheckpointError if all checkpoints are
    damaged, or they hold leaves of other names, shapes or dtypes than `abstract_state` because they
    come from another config.
    """
    newest = self._read_newest_good(_items(abstract_state))
    if newest is None:
      return None
    step, items, record, damaged = newest
    for bad_step in damaged:
      self._set_aside(bad_step)
    count = np.asarray(step, abstract_state.step.dtype)
    step = put(count, getattr(abstract_state.step, 'sharding', None))
    return abstract_state.replace(step=step, **items), record['meta']

  def restore_params(
    self, abstract_params: Target, which: str = 'average', step: int | None = None
  ) -> tuple[Tree, JSON]:
    """Reads only the parameters of the newest good checkpoint, and changes nothing on disk.

    `abstract_params` are as in `restore`, but of any floating types: once they are verified, the
    parameters are rounded to them. It may also be a function that makes them from a mapping of
    every saved leaf, name -> [dtype, shape, fingerprint], and may leave some out. `which` is
    'average', the moving average of the parameters, or 'params'. If the requested `step` is
    damaged, none takes its place. Raises CheckpointError if there is no checkpoint, none is good,
    or they come from another config.
    """
    if step is not None:
      return self._read_exactly(step, {which: abstract_params})
    newest = self._read_newest_good({which: abstract_params}, cast=True)
    if newest is None:
      raise self.nothing()
    _, items, record, _ = newest
    return items[which], record['meta']

  def restore_record(self) -> JSON:
    """Reads what the newest good checkpoint says of itself. Raises CheckpointError without one."""
    newest = self._read_newest_good({})
    if newest is None:
      raise self.nothing()
    return newest[2]

  def newest_record(self) -> JSON | None:
    """Returns what the newest checkpoint says of itself that says anything; asks no other process.

    Unlike `restore_record` it never raises: it returns None if there is no record.
    """
    try:
      steps = finished_steps(self.directory)
    except OSError:  # reading the checkpoints will say so
      return None
    for step in reversed(steps):
      try:
        return read_record(self.directory / str(step))
      except Exception as error:  # of any kind, of a damaged one
        _log.debug('checkpoint of step %d: %s', step, first_line(error))
    return None

  def nothing(self) -> CheckpointError:
    """Returns the error that there is no checkpoint."""
    return CheckpointError(f'no checkpoint in {self.directory}; train first, or mend the path')

  def wait(self, seconds: float = math.inf) -> None:
    """Blocks until the save on its way is safely on disk. Raises CheckpointError if it failed.

    After so many seconds it is given up.
    """
    if self._sweeping is not None:
      self._sweeping.join()
    if self._manager is None:
      return
    end = time.monotonic() + seconds
    with self._writing():
      while self._manager.is_saving_in_progress():
        if self._failed:
          raise self._failed[0]
        if time.monotonic() > end:
          _log.warning('a checkpoint in %s was not written in %g s', self.directory, seconds)
          self._manager = None
          return
        time.sleep(0.005)
      self._manager.wait_until_finished()

  def close(self, seconds: float = math.inf) -> None:
    """Waits for the save on its way, as `wait` does, and frees the writer's threads."""
    self.wait(seconds)
    if self._manager is not None:
      self._manager.close()
      sweep(self.directory, idle=True)
    self._manager = None

  def __enter__(self) -> Self:
    return self

  def __exit__(self, kind: type | None, *_: object) -> None:
    # Where one of several processes fails, the others may never come to their part of a save.
    self.close(_PATIENCE if kind and jax.process_count() > 1 else math.inf)

  @contextlib.contextmanager
  def _writing(self) -> Iterator[None]:
    try:
      yield
    except Exception as error:
      # The manager goes on listing a step that failed to be written: only a new one is right.
      self._manager = None
      if lost_peer(error):  # which another start may mend
        raise
      raise CheckpointError(
        f'cannot write a checkpoint to {self.directory}: {first_line(error)};'
        ' is the disk full, or the path not a writable directory?'
      ) from error

  def _read_newest_good(
    self, targets: Mapping[str, Target], cast: bool = False
  ) -> tuple[int, dict[str, Tree], JSON, list[int]] | None:
    """Returns step, items, record, and the newer steps that are damaged."""
    damaged: list[int] = []
    while (step := _first_says(lambda: self._next(damaged))) >= 0:
      try:
        return step, *read_items(self.directory / str(step), targets, cast), damaged
      except Damaged as error:
        _log.warning('checkpoint of step %d in %s is damaged: %s', step, self.directory, error)
        damaged.append(step)
    if step == _NONE:
      return None
    if step == _UNKNOWN:
      raise self._unknown()
    raise CheckpointError(
      f'no checkpoint in {self.directory} is good: {len(damaged)} damaged (steps'
      f' {sorted(damaged)}; the log says how), {len(self.aside())} set aside before; bring the'
      ' directory back from a backup, or begin anew in an empty work directory'
    )

  def _unknown(self) -> CheckpointError:
    return CheckpointError(f'the first process cannot look for checkpoints at {self.directory}')

  def _next(self, damaged: list[int]) -> int:
    """Returns the newest step not known to be damaged, or why there is none."""
    steps = self.steps()
    if undamaged := [step for step in steps if step not in damaged]:
      return undamaged[-1]
    # Checkpoints set aside count: a run must never silently begin again beside them.
    return _NONE_GOOD if steps or self.aside() else _NONE

  def _read_exactly(self, step: int, targets: Mapping[str, Target]) -> tuple[Tree, JSON]:
    path = self.path_of(step)
    try:
      items, record = read_items(path, targets, cast=True)
    except Damaged as error:
      raise CheckpointError(
        f'the checkpoint of step {step} in {self.directory} is damaged: {error}; take another step'
      ) from error
    return next(iter(items.values())), record['meta']

  def aside(self) -> list[epath.Path]:
    """The directories of damaged checkpoints that were set aside."""
    return sorted(_asked(self.directory, lambda: list(self.directory.glob(f'*{ASIDE}*'))))

  def _set_aside(self, step: int) -> None:
    if jax.process_index() == 0:
      target = self.directory / f'{step}{ASIDE}'
      while target.exists():
        target = target.with_name(f'{target.name}-again')
      (self.directory / str(step)).rename(target)
      _log.warning('renamed the damaged checkpoint of step %d to %s', step, target.name)
    if jax.process_count() > 1:
      multihost_utils.sync_global_devices(f'checkpoint {step} set aside')
    self._manager = None  # a manager remembers the steps it once saw, and would refuse this one


def _is_url(directory: str | os.PathLike[str]) -> bool:
  return '://' in os.fspath(directory)


def _asked(directory: epath.Path, question: Callable[[], T]) -> T:
  """Asks about a directory; without a way to its URL nothing may pass for an empty one."""
  try:
    return question()
  except Exception as error:
    if not _is_url(directory):
      raise
    problem = f'{type(error).__name__}: {first_line(error)}'
    raise CheckpointError(
      f'cannot look for checkpoints at {directory} ({problem}); mend the URL, the credentials or'
      ' the connection; gs:// needs `pip install mgjax[gcs]`'
    ) from error


def _items(state: Tree) -> dict[str, Tree]:
  """The fields of a state, each an item of the checkpoint; the step names its directory."""
  return {name: getattr(state, name) for name in state.__dataclass_fields__ if name != 'step'}


def _first_says(question: Callable[[], int]) -> int:
  """What the first process answers to a question; what it raises it raises on all of them."""
  if jax.process_count() == 1:
    return question()
  answer = _UNKNOWN
  problem = None
  if jax.process_index() == 0:
    try:
      answer = question()
    except Exception as error:
      problem = error
  answer = int(multihost_utils.broadcast_one_to_all(np.int32(answer)))
  if problem is not None:
    raise problem
  return answer
