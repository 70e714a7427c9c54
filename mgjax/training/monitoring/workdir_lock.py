"""Locks a folder for one process, such as a work directory: of two that would write, one does.

The lock is a lease of `filelock`: a file that names host and process, and that a thread touches.
That of a process of this machine that is gone is taken over at once, that of another machine after
`LEASE` seconds without a touch, as seen from here, so clocks may differ. Readers need no lock.
"""

import contextlib
import logging
import os
import shutil
import sys
import threading
import time
from collections.abc import Iterator

import filelock

from mgjax.core.errors import ConfigError, StorageError
from mgjax.core.run_names import own_folder

LOCK = 'mgjax.lock'
BEAT = 2.0  # seconds between two signs of life
LEASE = 60.0  # seconds without any that a living process of another machine does not let pass
_OFTEN = 0.2  # seconds between two looks at a lock
_WAITING, _TAKEN, _REFUSED, _IN_USE = range(4)

_log = logging.getLogger(__name__)
_held: dict[str, tuple[int, 'Hold | None']] = {}  # which thread of this process holds what


class InUseError(ConfigError):
  """Another process holds a folder."""


class Hold:
  """A folder that this process holds."""

  def __init__(self, lease: filelock.SoftFileLease):
    """Looks at the file that has just been made for `lease`, which keeps it open."""
    self._lease = lease
    self._made = os.stat(lease.lock_file)

  def is_ours(self) -> bool:
    """Says whether the lock is still the file that this process made."""
    try:
      same = os.path.samestat(os.stat(self._lease.lock_file), self._made)
    except FileNotFoundError:
      same = False
    except OSError:  # the disk does not answer at the moment
      same = True
    return same and self._lease.compromise is None

  def check(self) -> None:
    """Raises ConfigError if the lock was deleted, or taken over while this process was frozen."""
    if not self.is_ours():
      folder = os.path.dirname(self._lease.lock_file)
      raise ConfigError(
        f'{folder!r} is not held by this process any more: it was frozen for {LEASE:g} s and '
        f'another one took over, or {LOCK} was deleted; what is saved is safe, and the same '
        'command goes on if no other one runs'
      )


@contextlib.contextmanager
def hold(folder: str | os.PathLike[str], what: str = 'work directory') -> Iterator[Hold | None]:
  """Locks a folder, so that no other process that asks writes there.

  It is made if it is missing, and removed again if nothing was written to it. A process that holds
  it already, in the same thread, goes on. Of several processes of one run the first one holds it
  for all; the others get None. `what` names the folder in messages.
  Raises InUseError if another process holds it, or another thread of this one, and ConfigError if
  it is a URL.
  """
  folder = own_folder(folder)
  thread = threading.get_ident()
  key = os.path.realpath(folder)
  created = False
  if key in _held and _held[key][0] == thread:
    yield _held[key][1]
    return
  lease = filelock.SoftFileLease(
    folder / LOCK, lease_duration=LEASE, heartbeat_interval=BEAT, thread_local=False
  )
  answer = _WAITING
  problem = None
  looking = _take(lease, what)
  while answer == _WAITING:
    if _process() == 0:
      try:
        created = created or not folder.exists()
        folder.mkdir(parents=True, exist_ok=True)
        next(looking)
      except StopIteration:
        answer = _TAKEN
      except InUseError as error:
        problem, answer = error, _IN_USE
      except Exception as error:  # which the others have to hear of
        problem, answer = error, _REFUSED
    answer = _first_says(answer)  # again and again: they do not wait for a minute
  if answer != _TAKEN:
    kind = InUseError if answer == _IN_USE else ConfigError
    raise problem or kind(f'the first process may not use {os.fspath(folder)!r}')
  held = Hold(lease) if _process() == 0 else None
  _held[key] = thread, held
  try:
    yield held
  finally:
    del _held[key]
    lease.release()  # which keeps a file that another process has created
    if created:
      with contextlib.suppress(OSError):  # what is not empty stays
        folder.rmdir()


def _process() -> int:
  """Returns which process of a run this one is; 0 of one on its own, which need not load JAX."""
  jax = sys.modules.get('jax')
  return jax.process_index() if jax is not None and jax.distributed.is_initialized() else 0


def _first_says(answer: int) -> int:
  jax = sys.modules.get('jax')
  if jax is None or not jax.distributed.is_initialized():
    return answer
  import numpy as np
  from jax.experimental import multihost_utils

  return int(multihost_utils.broadcast_one_to_all(np.int32(answer)))


def _take(lease: filelock.SoftFileLease, what: str) -> Iterator[None]:
  """Takes a lease; yields whenever it has to look again whether the one who holds it is alive.
  Raises InUseError if the process is there, since its lock was touched while this one looked, and
  StorageError if the disk is full.
  """
  folder = os.path.dirname(lease.lock_file)
  began = time.monotonic()
  first = None
  warned = False
  while True:
    owner = lease.owner
    touched = _touched(lease.lock_file)
    with contextlib.suppress(filelock.Timeout):
      lease.acquire(timeout=0)
      if owner is not None or first is not None:
        _log.warning('took over %s from %s, which is gone', folder, _named(owner))
      return
    if touched is None:  # released just now
      continue
    spent = time.monotonic() - began
    alive = touched != (first := first or touched) or lease.is_lock_held_by_us
    if alive or spent > 2 * LEASE:
      raise InUseError(
        f'the {what} {folder!r} is in use by {_named(owner)} (see {LOCK}); wait for it to end, '
        f'stop it, or take another one{"" if alive else f"; if there is none, delete {LOCK}"}'
      )
    if spent > 2 * BEAT and not warned:
      warned = True
      if not shutil.disk_usage(folder).free:  # which keeps a lock of a process that is gone
        raise StorageError(f'cannot write {LOCK} in {folder!r}: the disk is full; make room')
      _log.warning(
        '%s is held by %s: looking for up to %.0f s whether that is alive',
        folder,
        _named(owner),
        LEASE,
      )
    yield
    time.sleep(_OFTEN)


def _touched(path: str) -> tuple[int, int] | None:
  """Returns which file the lock is and when it was touched; None if there is none."""
  try:
    with open(path, 'rb') as file:  # a network disk asks its server when a file is opened
      status = os.fstat(file.fileno())
  except FileNotFoundError:
    return None
  return status.st_ino, status.st_mtime_ns


def _named(owner: filelock.OwnerRecord | None) -> str:
  if owner is None:
    return 'a process that it does not name'
  host = owner.hostname.partition('?')[0]  # without its namespace
  return f'process {owner.pid} on {host!r}'
