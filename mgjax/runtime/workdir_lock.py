"""The lock of a work directory: of two processes that would write there, one does.

`lock.json` names the process that holds the directory; making it is what takes it, since of several
processes that make a file with O_EXCL one alone succeeds. Its time stamp is a heartbeat. Whoever
finds the lock of a process that is gone claims it: it makes, in the same way, a file that is named
after the content of that lock, and puts it in the lock's place. A claim of a process that is gone
too is claimed alike. Readers need no lock.
"""

import contextlib
import hashlib
import json
import logging
import math
import os
import pathlib
import socket
import sys
import tempfile
import threading
import time
from collections.abc import Generator, Iterator
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils

from mgjax.core.errors import ConfigError

LOCK = 'lock.json'
BEAT = 20.0  # seconds between two signs of life
MISSED = 3  # beats that a living process does not miss
_OFTEN = 0.2  # seconds between two looks at a lock, at most
_WAITING, _TAKEN, _REFUSED, _IN_USE = range(4)

_log = logging.getLogger(__name__)
_held: dict[str, tuple[dict[str, Any], 'Hold | None']] = {}  # which thread holds what


class InUseError(ConfigError):
  """Another process holds a work directory."""


class Hold:
  """A work directory that this process holds.

  Attributes:
    path: of the lock.
  """

  def __init__(self, path: pathlib.Path, handle: int, beat: float):
    self.path = path
    self._handle, self._over, self._lost = handle, threading.Event(), False
    self._thread = threading.Thread(
      target=self._beat, args=(beat,), name='work directory lock', daemon=True
    )
    self._thread.start()

  def check(self) -> None:
    """Makes sure that nobody took the directory over, from a process that was frozen, say.

    Raises:
      ConfigError: somebody did, or the lock was deleted; nothing more may be written there.
    """
    if not self.is_ours():
      raise ConfigError(
        f'{os.fspath(self.path.parent)!r} is not held by this process any more: it was frozen for '
        f'more than {MISSED} beats of {self.path.name} and another one took over, or that file was '
        'deleted; what is saved is safe, and the same command goes on if no other one runs'
      )

  def is_ours(self) -> bool:
    """Says whether the lock is still the file that this process made."""
    try:
      self._lost |= not os.path.samestat(os.stat(self.path), os.fstat(self._handle))
    except FileNotFoundError:
      self._lost = True
    except OSError:  # the disk does not answer at the moment
      pass
    return not self._lost

  def release(self) -> None:
    """Ends the hold."""
    self._over.set()
    self._thread.join()
    if self.is_ours():
      self.path.unlink(missing_ok=True)
    os.close(self._handle)

  def _beat(self, pause: float) -> None:
    while not self._over.wait(pause):
      with contextlib.suppress(OSError):  # the next one may come through
        os.utime(self._handle)  # by the clock of the disk


@contextlib.contextmanager
def hold(workdir: str | os.PathLike[str], beat: float = BEAT) -> Iterator[Hold | None]:
  """Holds a work directory, so that no other process writes there.

  A process that holds it already, in the same thread, goes on. Of several processes of one run the
  first one holds it for all.

  Args:
    workdir: is made if it is missing, and removed again if nothing was written to it.
    beat: seconds between two signs of life.

  Yields:
    The hold; None in the other processes of a run, for which the first one looks after it.

  Raises:
    InUseError: another process holds it, or another thread of this one.
  """
  workdir = pathlib.Path(workdir)
  key, made = os.path.realpath(workdir), False
  if key in _held and _held[key][0] == _myself():
    yield _held[key][1]
    return
  found, problem, answer = None, None, _WAITING
  taking = _take(workdir / LOCK, _describe(beat))
  while answer == _WAITING:
    if jax.process_index() == 0:
      try:
        made = made or not workdir.exists()
        workdir.mkdir(parents=True, exist_ok=True)
        next(taking)
      except StopIteration as taken:
        found, answer = Hold(workdir / LOCK, taken.value, beat), _TAKEN
      except InUseError as error:
        problem, answer = error, _IN_USE
      except Exception as error:  # which the others have to hear of
        problem, answer = error, _REFUSED
    answer = _first_says(answer)  # again and again: they do not wait for a minute
  if answer in (_REFUSED, _IN_USE):
    kind = InUseError if answer == _IN_USE else ConfigError
    raise problem or kind(f'the first process may not use {os.fspath(workdir)!r}')
  _held[key] = _myself(), found
  try:
    yield found
  finally:
    del _held[key]
    if found is not None:
      found.release()
    if made:
      with contextlib.suppress(OSError):  # what is not empty stays
        workdir.rmdir()


def _first_says(answer: int) -> int:
  if jax.process_count() == 1:
    return answer
  return int(multihost_utils.broadcast_one_to_all(np.int32(answer)))


def _take(path: pathlib.Path, described: bytes) -> Generator[None, None, int]:
  """Makes the lock, or takes over one whose process is gone; returns its open file.

  Whoever waits hears of each look that it takes at the lock of a process on another machine.
  """
  while True:
    place, trail = path, []
    while (handle := _make(place, described)) is None:
      try:
        content = place.read_bytes()
      except FileNotFoundError:  # it was released just now
        break
      yield from _check_gone(place, content)
      trail.append((place, content))
      place = path.with_name(f'.{path.name}.{hashlib.sha256(content).hexdigest()[:16]}')
    else:
      if all(_holds(*step) for step in trail):
        if trail:
          os.replace(place, path)
          for claim, _ in trail[1:]:
            claim.unlink(missing_ok=True)
          _log.warning('took over %s from %s, which is gone', path.parent, _named(trail[0][1]))
        return handle
      os.close(handle)  # what was claimed has been taken over and released in the meantime
      place.unlink(missing_ok=True)


def _make(path: pathlib.Path, described: bytes) -> int | None:
  """Makes a file that is not there, and returns it open; None if it is there."""
  try:
    handle = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o644)
  except FileExistsError:
    return None
  try:
    os.write(handle, described)
  except OSError:
    os.close(handle)
    path.unlink(missing_ok=True)
    raise
  return handle


def _holds(path: pathlib.Path, content: bytes) -> bool:
  try:
    return path.read_bytes() == content
  except FileNotFoundError:
    return False


def _check_gone(path: pathlib.Path, content: bytes) -> Generator[None, None, None]:
  """Returns once it is known that who made a lock is gone, or the lock is not that one any more.

  Raises:
    InUseError: the process is there.
  """
  owner = _parsed(content)
  if (there := _is_there(owner)) is None:
    there = yield from _beats(path, content, owner)
  if there:
    began = owner.get('began')
    since = time.strftime('%Y-%m-%d %H:%M:%S', time.localtime(began)) if began else 'some time'
    raise InUseError(
      f'{os.fspath(path.parent)!r} is in use by {_named(content)} since {since} (see {path.name}); '
      'wait for it to end, stop it, or take another --workdir'
    )


def _is_there(owner: dict[str, Any]) -> bool | None:
  """Says whether a process of this machine is there; None if that cannot be known from here."""
  me = _myself()
  if not owner or owner['machine'] != me['machine'] or not me['machine']:
    return None
  return _start_of(owner['process']) == owner['start']


def _beats(
  path: pathlib.Path, content: bytes, owner: dict[str, Any]
) -> Generator[None, None, bool]:
  """Watches a lock for as long as a living process would need to beat; False if it does not."""
  patience = MISSED * owner.get('beat', BEAT)
  first, said = _stamp(path), False
  with tempfile.NamedTemporaryFile(dir=path.parent, prefix=f'.{path.name}.') as file:
    now = os.fstat(file.fileno()).st_mtime  # by the clock of the disk, as the beats are
  if first is None or now - first > patience:
    return False
  began = time.monotonic()
  while (spent := time.monotonic() - began) < patience:
    yield
    time.sleep(min(_OFTEN, patience / 10))
    if _stamp(path) != first or not _holds(path, content):
      return _holds(path, content)
    if spent > 1 and not said:  # not of one that is just being written
      said = True
      _log.warning(
        '%s is held by %s: looking for up to %.0f s whether that is alive',
        path.parent, _named(content), patience,
      )  # fmt: skip
  return False


def _stamp(path: pathlib.Path) -> float | None:
  try:
    with path.open('rb') as file:  # a network disk asks its server when a file is opened
      return os.fstat(file.fileno()).st_mtime
  except FileNotFoundError:
    return None


def _describe(beat: float) -> bytes:
  about = {
    'host': socket.gethostname(),
    **_myself(),
    'began': round(time.time(), 3),
    'beat': beat,
    'command': ' '.join(sys.argv)[:500],
    'nonce': os.urandom(8).hex(),
  }
  del about['thread']
  return (json.dumps(about, indent=2) + '\n').encode()


def _myself() -> dict[str, Any]:
  """This thread of this process; a process is told from a later one by when it started."""
  process = os.getpid()
  return {
    'machine': _machine(),
    'process': process,
    'start': _start_of(process),
    'thread': threading.get_ident(),
  }


def _machine() -> str:
  """Names what gives out process numbers: a machine since it started, or a container on it."""
  try:
    boot = pathlib.Path('/proc/sys/kernel/random/boot_id').read_text().strip()
    return f'{boot} {os.readlink("/proc/self/ns/pid")}'
  except OSError:
    return ''


def _start_of(process: int) -> int | None:
  """Returns when a process started, in ticks of the machine; None if it is not there."""
  try:
    fields = pathlib.Path(f'/proc/{process}/stat').read_text().rpartition(')')[2].split()
    return None if fields[0] in 'ZX' else int(fields[19])
  except (OSError, ValueError, IndexError):
    return None


def _parsed(content: bytes) -> dict[str, Any]:
  """Reads what a lock says; nothing, if it was cut short or damaged."""
  kinds = {
    'host': str,
    'machine': str,
    'process': int,
    'start': (int, type(None)),  # it is not known everywhere
    'began': float,
    'beat': float,
  }
  try:
    found = json.loads(content)
    about = {name: found[name] for name in kinds}
  except (ValueError, TypeError, KeyError, RecursionError):
    return {}
  right = all(isinstance(about[name], kind) for name, kind in kinds.items())
  finite = right and all(math.isfinite(about[name]) for name in ('began', 'beat'))
  return about if finite and 0 < about['beat'] <= 3600 and 0 < about['began'] < 2**33 else {}


def _named(content: bytes) -> str:
  owner = _parsed(content)
  if not owner:
    return 'a process that it does not name'
  return f'process {owner["process"]} on {owner["host"][:100]!r}'
