"""Keeps compiled programs for the next start in JAX's persistent cache, in a folder of the user."""

import logging
import os
import pathlib
import platform
import tempfile
import zlib
from collections.abc import Mapping

LIMIT = 2 * 2**30  # bytes of the folder; the least recently used programs are deleted
ADVICE = 'XDG_CACHE_HOME names another folder, and --nocache does without'
# Setting of JAX -> its default, and ours, which replaces the default alone.
_SETTINGS = {
  'jax_compilation_cache_max_size': (-1, LIMIT),
  'jax_persistent_cache_min_compile_time_secs': (1.0, 0.0),
  # XLA's own caches for GPUs would lie in the same folder, without end.
  'jax_persistent_cache_enable_xla_caches': ('xla_gpu_per_fusion_autotune_cache_dir', 'none'),
}

_log = logging.getLogger(__name__)


def processor() -> str:
  """Names the processor's features: code compiled for one must not run on a lesser one."""
  try:
    lines = pathlib.Path('/proc/cpuinfo').read_text().splitlines()
  except OSError:
    lines = []
  features = next((line for line in lines if line.startswith(('flags', 'Features'))), '')
  return f'{platform.machine()}-{zlib.crc32(features.encode()):08x}'


def default_folder(environment: Mapping[str, str] = os.environ) -> pathlib.Path:
  """Returns this user's folder for this processor. Raises RuntimeError without a home folder."""
  cache_home = environment.get('XDG_CACHE_HOME', '')
  # The XDG specification says to ignore relative paths.
  caches = pathlib.Path(cache_home) if os.path.isabs(cache_home) else pathlib.Path.home() / '.cache'
  return caches / 'mgjax' / 'compiled' / processor()


def use() -> None:
  """Caches the programs that this process compiles, and reuses programs in the cache.

  Settings of JAX win: `JAX_COMPILATION_CACHE_DIR` names another cache, and
  `JAX_ENABLE_COMPILATION_CACHE=0` means none. Processes of one run do without
  (`mgjax.parallel.distributed.initialize`).
  """
  import jax  # and nothing of mgjax, which may be waiting for this import of JAX

  # JAX makes the attributes of `config` at import, unseen by its types.
  folder = jax.config.jax_compilation_cache_dir  # pyright: ignore[reportAttributeAccessIssue]
  enabled = jax.config.jax_enable_compilation_cache  # pyright: ignore[reportAttributeAccessIssue]
  if folder or not enabled:
    return
  if jax.distributed.is_initialized():
    return
  try:
    folder = default_folder()
    make_folder(folder)
  except (OSError, RuntimeError) as error:
    _log.info('Compiled programs are not kept (%s); %s', error, ADVICE)
    return
  jax.config.update('jax_compilation_cache_dir', os.fspath(folder))
  for name, (usual, ours) in _SETTINGS.items():
    if getattr(jax.config, name) == usual and name.upper() not in os.environ:
      jax.config.update(name, ours)


def leave_out() -> None:
  """Disables the cache for the rest of this process."""
  import jax

  jax.config.update('jax_enable_compilation_cache', False)


def make_folder(folder: pathlib.Path) -> None:
  """Makes a folder that only this user can write to, since its programs run; or raises OSError."""
  folder.parent.mkdir(parents=True, exist_ok=True)
  try:
    folder.mkdir(mode=0o700)
    _log.info('Compiled programs are kept in %s for the next start; --nocache does without', folder)
  except FileExistsError:
    status = folder.stat()
    mine = not hasattr(os, 'geteuid') or status.st_uid == os.geteuid()
    if not mine or status.st_mode & 0o022:
      raise PermissionError(f'others may write to {os.fspath(folder)!r}') from None
  with tempfile.TemporaryFile(dir=folder), os.scandir(folder) as entries:
    for entry in entries:  # JAX reads any file with a program's name: a pipe would block it
      if not (entry.is_file(follow_symlinks=False) or entry.is_dir(follow_symlinks=False)):
        os.unlink(entry)
