"""Devices, memory, room on disks, the cache of compiled programs and the clock."""

import os
import pathlib
import shutil
import tempfile
import time
from collections.abc import Iterator

import numpy as np

from mgjax.core.errors import first_line
from mgjax.runtime import compilation_cache
from mgjax.runtime.doctor.finding import Finding, optional, right, wrong
from mgjax.runtime.tpu_presence import may_have_tpu

_GB = 10**9
MEMORY = 1.5 * _GB  # what `make quickstart` takes
ROOM = 2 * _GB  # its work directory, and a few samples
TEMPORARY = 0.2 * _GB
SKEW = 5.0  # seconds that a file server's clock may differ; file times of some count in twos
_SIDE = 256  # of the matrices that devices multiply
_ROOT = pathlib.Path('/')


def look_at_devices(root: pathlib.Path = _ROOT) -> Iterator[Finding]:
  """Yields a line of the devices, which multiply matrices, and one of those that JAX leaves out.

  Args:
    root: of the file system.
  """
  import jax

  try:
    devices = jax.local_devices()
    for device in devices:
      x = jax.device_put(np.ones((_SIDE, _SIDE), np.float32), device)
      if not np.all(np.asarray(x @ x) == _SIDE):
        yield wrong('devices', f'{device} multiplies wrongly', 'take it out of use')
        return
  except RuntimeError as error:
    platforms = jax.config.jax_platforms
    why = f'JAX_PLATFORMS is {platforms!r}' if platforms else 'the driver may not fit'
    yield wrong('devices', first_line(error), why)
    return
  kinds = sorted({device.device_kind for device in devices})
  platform = devices[0].platform
  cores = f', {len(os.sched_getaffinity(0))} cores' if platform == 'cpu' else ''
  yield right('devices', f'{len(devices)} x {", ".join(kinds)}{cores}; each multiplies matrices')
  if platform == 'cpu' and not jax.config.jax_platforms:
    if (root / 'proc/driver/nvidia/version').exists():
      advice = "python -m pip install 'jax[cuda13]', or a newer driver"
      yield optional('devices', 'there is an NVIDIA GPU that JAX does not use', advice)
    if may_have_tpu(root=root):
      advice = "python -m pip install 'jax[tpu]'"
      yield optional('devices', 'there may be a TPU that JAX does not use', advice)


def look_at_memory(root: pathlib.Path = _ROOT) -> Iterator[Finding]:
  """Yields a line of the memory that is free here, within a container's limit, and of each device.

  Args:
    root: of the file system.
  """
  import jax

  free = free_memory(root)
  if free is None:
    yield optional('memory', 'cannot be told here', f'{MEMORY / _GB:.1f} GB are needed')
  else:
    told = f'{free / _GB:.1f} GB are free'
    advice = f'make quickstart takes {MEMORY / _GB:.1f} GB; end what else runs'
    yield right('memory', told) if free >= MEMORY else wrong('memory', told, advice)
  try:
    devices = jax.local_devices()
  except RuntimeError:  # of which the line of devices tells
    return
  for device in devices:
    numbers = (device.memory_stats() or {}) if device.platform != 'cpu' else {}
    if limit := numbers.get('bytes_limit'):
      used = numbers.get('bytes_in_use', 0)
      told = f'{device}: {(limit - used) / _GB:.1f} GB of {limit / _GB:.1f} GB are free for JAX'
      yield right('memory', told)


def free_memory(root: pathlib.Path = _ROOT) -> int | None:
  """Returns bytes that a process may still take, by /proc and the control group's limit.

  Args:
    root: of the file system.

  Returns:
    Bytes; None where /proc does not tell.
  """
  try:
    lines = (root / 'proc/meminfo').read_text().splitlines()
    words = next(line for line in lines if line.startswith('MemAvailable:')).split()
    free = int(words[1]) * 1024
  except (OSError, StopIteration, ValueError, IndexError):
    return None
  group = root / 'sys/fs/cgroup'
  for limit, used in (
    (group / 'memory.max', group / 'memory.current'),
    (group / 'memory/memory.limit_in_bytes', group / 'memory/memory.usage_in_bytes'),
  ):
    try:
      free = min(free, int(limit.read_text()) - int(used.read_text()))
    except (OSError, ValueError):  # there is none, or its limit is the word max
      continue
  return free


def look_at_disks(workdir: str | os.PathLike[str]) -> Iterator[Finding]:
  """Yields a line of the room for work directories and one of that for temporary files.

  Args:
    workdir: where work directories will lie; it need not be there.
  """
  yield _room('disk', existing_folder(workdir), ROOM, 'name another folder by --workdir')
  yield _room('temporary', pathlib.Path(tempfile.gettempdir()), TEMPORARY, 'set TMPDIR to another')


def _room(what: str, folder: pathlib.Path, needed: float, advice: str) -> Finding:
  try:
    with tempfile.NamedTemporaryFile(dir=folder) as file:
      file.write(b'mgjax')
      file.flush()
    free = shutil.disk_usage(folder).free
  except OSError as error:
    return wrong(what, f'{folder} cannot be written to: {error.strerror}', advice)
  told = f'{free / _GB:.1f} GB are free in {folder}'
  if free >= needed:
    return right(what, told)
  return wrong(what, told, f'{needed / _GB:.1f} GB are needed; make room, or {advice}')


def look_at_cache() -> Iterator[Finding]:
  """Yields a line of the folder of compiled programs: where it is, and how large."""
  advice = f'every start compiles again; {compilation_cache.ADVICE}'
  try:
    folder = compilation_cache.default_folder()
    compilation_cache.make_folder(folder)
    with tempfile.NamedTemporaryFile(dir=folder):
      sizes = [entry.stat().st_size for entry in os.scandir(folder)]
    told = f'{sum(sizes) / _GB:.2f} of at most {compilation_cache.LIMIT / _GB:.2f} GB in {folder}'
  except (OSError, RuntimeError) as error:
    yield optional('cache', first_line(error), advice)
    return
  yield right('cache', told)


def look_at_clock(workdir: str | os.PathLike[str]) -> Iterator[Finding]:
  """Yields a line of this machine's clock against that of the disk, and against its own past.

  Args:
    workdir: where work directories will lie; it need not be there.
  """
  folder, advice = existing_folder(workdir), 'synchronise the clocks, as by chrony or ntpd'
  try:
    with tempfile.NamedTemporaryFile(dir=folder) as file:
      file.write(b'mgjax')
      file.flush()
      off = os.stat(file.name).st_mtime - time.time()
  except OSError as error:
    yield wrong('clock', f'{folder} cannot be written to: {error.strerror}', 'name another folder')
    return
  written = pathlib.Path(compilation_cache.__file__).stat().st_mtime
  if abs(off) > SKEW:
    yield wrong('clock', f'{off:+.0f} s, the times of files in {folder} against it', advice)
  elif written > time.time() + SKEW:
    late = (written - time.time()) / 86_400
    yield wrong('clock', f'it is {late:.1f} days before mgjax was installed', advice)
  else:
    today = time.strftime('%Y-%m-%d %H:%M UTC', time.gmtime())
    yield right('clock', f'{today}, {abs(off):.1f} s from the times of files in {folder}')


def existing_folder(path: str | os.PathLike[str]) -> pathlib.Path:
  """Returns the folder at a path, or the nearest above it that is there.

  Args:
    path: of a folder.
  """
  folder = pathlib.Path(path).absolute()
  while not folder.is_dir() and folder != folder.parent:
    folder = folder.parent
  return folder
