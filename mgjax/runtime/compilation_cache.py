"""Compiled programs, kept in the user's cache folder for the processes that come after.

JAX has such a cache but leaves much to its user: where it keeps zstandard's frames a damaged entry
is run as it is, damaged entries stay, each with a warning at every start, and one that was half
deleted stops its eviction. Here an entry is a file of its digest and what JAX made of the program.
It is written whole or not at all, deleted where it is not what its digest says, and nothing that
goes wrong costs more than a sentence and the time to compile.
"""

import contextlib
import hashlib
import logging
import os
import pathlib
import platform
import tempfile
import zlib
from collections.abc import Iterator, Mapping

LIMIT = 2 * 2**30  # bytes of a folder; what was used longest ago goes
_WRITTEN = LIMIT // 16  # bytes between two looks at how much there is
_EVERY_PROGRAM = 'jax_persistent_cache_min_compile_time_secs'
ADVICE = 'XDG_CACHE_HOME names another folder, and --nocache does without'

_log = logging.getLogger(__name__)
_in_use: list['Programs'] = []  # the folder of this process, if it has one


def in_use() -> 'Programs | None':
  """Returns the folder in which `use` has this process keep programs; None if it keeps none."""
  return _in_use[-1] if _in_use else None


@contextlib.contextmanager
def aside() -> Iterator[None]:
  """Has what is compiled meanwhile come from the compiler alone, and go to no cache.

  XLA cannot write again what it has read: on CPUs such a program has lost its functions.
  """
  import jax
  from jax.experimental.compilation_cache import compilation_cache as jax_cache

  before = jax.config.jax_enable_compilation_cache
  jax.config.update('jax_enable_compilation_cache', False)
  jax_cache.reset_cache()  # which has noted whether it is enabled
  try:
    yield
  finally:
    jax.config.update('jax_enable_compilation_cache', before)
    jax_cache.reset_cache()


def processor() -> str:
  """Names what the processor can do: compiled code must not travel to one that can do less."""
  try:
    lines = pathlib.Path('/proc/cpuinfo').read_text().splitlines()
  except OSError:
    lines = []
  features = next((line for line in lines if line.startswith(('flags', 'Features'))), '')
  return f'{platform.machine()}-{zlib.crc32(features.encode()):08x}'


def default_folder(environment: Mapping[str, str] = os.environ) -> pathlib.Path:
  """Returns where this user's programs for this kind of processor are kept.

  Raises:
    RuntimeError: nothing says where the user's home is.
  """
  given = environment.get('XDG_CACHE_HOME', '')
  # The specification has it that a relative path does not count.
  caches = pathlib.Path(given) if os.path.isabs(given) else pathlib.Path.home() / '.cache'
  return caches / 'mgjax' / 'compiled' / processor()


def use() -> None:
  """Keeps the programs that this process compiles, and takes those that others have kept.

  Settings of JAX win: `JAX_COMPILATION_CACHE_DIR` names another cache, which JAX then keeps alone,
  and `JAX_ENABLE_COMPILATION_CACHE=0` means none. Processes of one run do without: if some found a
  program and others compiled it, XLA could leave these waiting for those.
  """
  import jax

  if jax.config.jax_compilation_cache_dir or not jax.config.jax_enable_compilation_cache:
    return
  try:
    from jax._src import compilation_cache as jax_cache

    of_jax = jax_cache.get_file_cache
  except (ImportError, AttributeError):
    return  # a JAX that keeps programs otherwise: each start compiles, as it would without us
  try:
    folder = default_folder()
    make_folder(folder)
  except (OSError, RuntimeError) as error:
    _log.info('Compiled programs are not kept (%s); %s', error, ADVICE)
    return
  ours = Programs(folder)
  _in_use.append(ours)
  jax_cache.get_file_cache = lambda path: (
    (ours, path) if path == os.fspath(folder) else of_jax(path)
  )
  jax.config.update('jax_compilation_cache_dir', os.fspath(folder))
  if _EVERY_PROGRAM.upper() not in os.environ:
    jax.config.update(_EVERY_PROGRAM, 0.0)
  # XLA's own caches for GPUs would lie in the same folder, without digest and without end.
  jax.config.update('jax_persistent_cache_enable_xla_caches', 'none')


def make_folder(folder: pathlib.Path) -> None:
  """Makes a folder that nobody else may write to: whoever writes there runs code here.

  Raises:
    OSError: there is none to be had.
  """
  folder.parent.mkdir(parents=True, exist_ok=True)
  try:
    folder.mkdir(mode=0o700)
    _log.info('Compiled programs are kept in %s for the next start; --nocache does without', folder)
  except FileExistsError:
    status = folder.stat()
    mine = not hasattr(os, 'geteuid') or status.st_uid == os.geteuid()
    if not mine or status.st_mode & 0o022:
      raise PermissionError(f'others may write to {os.fspath(folder)!r}') from None


class Programs:
  """A folder of compiled programs, with what JAX asks of a cache: `get` and `put`."""

  def __init__(self, folder: pathlib.Path, limit: int = LIMIT):
    """Opens a folder, which is there, whose files take up to about `limit` bytes."""
    self._path = folder  # JAX asks for it by this name
    self._limit, self._until_look = limit, 0
    self._silent = self._full = False

  def get(self, key: str) -> bytes | None:
    """Returns what was kept under a key; None if that is nothing, or damaged."""
    path = self._file(key)
    if _one_of_several():
      return None
    try:
      stored = path.read_bytes()
    except FileNotFoundError:
      return None
    except OSError as error:
      self._tell(f'cannot be read: {error}; {ADVICE}')
      return None
    value = stored[hashlib.blake2b().digest_size :]
    if stored != _sealed(key, value):
      self._tell(f'was damaged, and is compiled again: {path}')
      with contextlib.suppress(OSError):
        path.unlink()
      return None
    with contextlib.suppress(OSError):  # of another user's, or read-only: then it is not in the way
      os.utime(path)
    return value

  def put(self, key: str, value: bytes) -> None:
    """Keeps a value under a key, unless there is no room for it."""
    if self._full or _one_of_several():
      return
    temporary = None
    try:
      # Not through core.files: what a loss of power leaves is found by its digest, and to wait for
      # the disk would cost more than many a program.
      with tempfile.NamedTemporaryFile(dir=self._path, delete=False) as file:
        temporary = pathlib.Path(file.name)
        file.write(_sealed(key, value))
      os.replace(temporary, self._file(key))
      self._until_look -= len(value)
      if self._until_look < 0:
        self._until_look = min(_WRITTEN, self._limit // 16)
        self._evict()
    except OSError as error:
      self._full = True
      self._tell(f'cannot be kept: {error}; {ADVICE}')
      if temporary is not None:
        with contextlib.suppress(OSError):
          temporary.unlink(missing_ok=True)

  def _file(self, key: str) -> pathlib.Path:
    # The names of functions, with which keys begin, may be longer than those of files.
    return self._path / hashlib.blake2b(key.encode(), digest_size=20).hexdigest()

  def _evict(self) -> None:
    """Deletes what was used longest ago, also what processes that died have left half-written."""
    files = []
    for entry in os.scandir(self._path):
      with contextlib.suppress(FileNotFoundError):  # another process evicts as well
        files.append((entry.stat().st_mtime, entry.stat().st_size, entry.path))
    size = sum(size for _, size, _ in files)
    for _, freed, path in sorted(files):
      if size <= self._limit:
        break
      pathlib.Path(path).unlink(missing_ok=True)
      size -= freed

  def _tell(self, what: str) -> None:
    """Says one sentence a process, however many programs it is true of."""
    if not self._silent:
      self._silent = True
      _log.info('A compiled program %s', what)


def _sealed(key: str, value: bytes) -> bytes:
  return hashlib.blake2b(value, key=hashlib.blake2b(key.encode()).digest()).digest() + value


def _one_of_several() -> bool:
  import jax

  return jax.distributed.is_initialized()
