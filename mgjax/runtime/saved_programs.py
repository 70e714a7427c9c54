"""Programs compiled ahead of time, which a later process runs without tracing the model.

JAX's own cache (`compilation_cache`) is asked by what a program is, so that every start traces and
lowers the model to ask. Here a program is found by what it was made of: the source of mgjax, the
versions of what compiled it, the devices, what its maker says of it, and the arrays that it takes.
It lies in the same folder of the user, or in a file that is named.

A program is machine code, and is unpickled: a file runs whatever it likes. Those of the folder are
the user's own; a file is read only where its header and digest say that it is whole and was made
here, which keeps mistakes out, not people.
"""

import concurrent.futures
import contextlib
import functools
import hashlib
import importlib.metadata
import json
import logging
import os
import pathlib
import pickle
from collections.abc import Callable, Mapping
from typing import Any

import jax
from jax.experimental import serialize_executable

import mgjax
from mgjax.core.config import differences
from mgjax.core.errors import ConfigError, first_line
from mgjax.core.files import write_bytes
from mgjax.runtime import compilation_cache

_MAGIC = b'mgjax programs 1\n'
_DIGEST = hashlib.blake2b().digest_size
_VERSIONS = ('jax', 'jaxlib', 'flax')
_OPTIONS = (
  *('jax_enable_x64', 'jax_default_matmul_precision', 'jax_default_prng_impl', 'jax_debug_nans'),
  *('jax_numpy_dtype_promotion', 'jax_threefry_partitionable', 'jax_disable_most_optimizations'),
  *('jax_optimization_level', 'jax_memory_fitting_level', 'jax_use_shardy_partitioner'),
)
_FLAGS = ('XLA_FLAGS', 'LIBTPU_INIT_ARGS')
# The default. With any option JAX compiles, and does not hand out what this process has loaded from
# a cache, which XLA cannot write again; see `compilation_cache.aside`.
_ANEW = {'xla_embed_ir_in_executable': False}
_SHOWN = 3  # differences that an error lists
# Rooms of mgjax that no trace enters.
_NO_NETWORKS = frozenset((
  *('benchmarks', 'checkpoints', 'curation', 'data', 'digits', 'evaluation', 'media', 'planning'),
  *('runtime', 'scaling', 'training', 'workflows'),
))  # fmt: skip

_log = logging.getLogger(__name__)


@functools.cache
def _source() -> str:
  """Returns a digest of mgjax's code, all that may be traced."""
  digest, root = hashlib.blake2b(digest_size=8), pathlib.Path(mgjax.__file__).parent
  for path in sorted(root.rglob('*.py')):
    place = path.relative_to(root)
    if place.parts[0] not in _NO_NETWORKS:
      code = path.read_bytes()
      digest.update(f'{place} {len(code)} '.encode() + code)
  return digest.hexdigest()


def surroundings() -> dict[str, Any]:
  """Returns what any program depends on here: versions, devices, and options of the compiler."""
  device, *others = jax.devices()
  options = {name: str(getattr(jax.config, name, None)) for name in _OPTIONS}
  options |= {name: os.environ.get(name, '') for name in _FLAGS}
  return {
    'mgjax': mgjax.__version__,
    'code': _source(),
    **{name: importlib.metadata.version(name) for name in _VERSIONS},
    'device': device.device_kind,
    'devices': 1 + len(others),
    'platform': device.client.platform_version,
    'processor': compilation_cache.processor(),
    'options': options,
  }


class SavedPrograms:
  """The programs of a model: from a file, from the user's folder, or compiled.

  Attributes:
    made: what the file was saved for, as `save` was told; None without a file.
  """

  def __init__(self, path: str | os.PathLike[str] | None = None, used_by: str = ''):
    """Opens a file that `save` wrote; without one, programs lie in the user's folder, if there.

    What the file holds, or what was used last under the name `used_by`, is loaded by a thread at
    once, while the caller reads weights.

    Raises:
      ConfigError: it cannot be read, is no such file, is damaged, or was made elsewhere.
    """
    self._path, self.made = path, None
    self._saved: dict[str, Any] = {}
    self._kept: dict[str, Kept] = {}
    self._ahead: dict[str, concurrent.futures.Future] = {}
    self._used: dict[str, str] = {}  # name of a function -> key of its last program
    self._used_by = used_by
    if path is not None:
      header, self._saved = _read(path)
      self.check('surroundings', header['surroundings'], surroundings())
      self.made = header['made']
    self._load_ahead()

  def keep(self, name: str, function: Any, about: Mapping[str, Any]) -> 'Kept':
    """Returns a function whose programs are taken from here.

    Args:
      name: of the function.
      function: what `jax.jit` returned, of positional arrays and static keywords.
      about: all that its trace depends on beside its arguments and mgjax's code, as JSON values.

    Raises:
      ConfigError: the file's program of this name is about something else.
    """
    about = json.loads(json.dumps(about))
    found = self._saved.get(name)
    if found is not None:
      self.check(name, found['about'], about)
    self._kept[name] = Kept(self, name, function, about)
    return self._kept[name]

  def save(self, path: str | os.PathLike[str], made: Mapping[str, Any]) -> None:
    """Writes the programs that have run, each the last one of its name.

    Args:
      path: of the file.
      made: whatever shall stand in it, as JSON values.

    Raises:
      ConfigError: none has run, or this backend cannot write them.
    """
    entries, parts = {}, []
    for name, kept in self._kept.items():
      if kept.last is not None:
        takes, data = kept.last()
        parts.append(data)
        entries[name] = {'about': kept.about, 'takes': takes, 'size': len(data)}
    if not all(parts) or not parts:
      raise ConfigError(
        f'there are no programs to save in {os.fspath(path)!r}: none has run, or those of '
        f'{jax.default_backend()} cannot be written; leave --save_program out'
      )
    header = {'surroundings': surroundings(), 'made': dict(made), 'programs': entries}
    body = json.dumps(header).encode() + b'\n' + b''.join(parts)
    write_bytes(path, _MAGIC + hashlib.blake2b(body).digest() + body)

  def check(self, name: str, saved: Mapping[str, Any], here: Mapping[str, Any]) -> None:
    """Raises ConfigError if what a program was saved for is not what is there now."""
    if found := differences(saved, here):
      more = f' and {len(found) - _SHOWN} more' if len(found) > _SHOWN else ''
      raise ConfigError(
        f'the programs in {os.fspath(self._path or "")!r} do not fit ({name}): '
        f'{"; ".join(found[:_SHOWN])}{more}; leave --program out, or save them anew with '
        '--save_program'
      )

  def load(
    self, name: str, about: Mapping[str, Any], takes: Mapping[str, str]
  ) -> tuple[Any, bytes] | None:
    """Returns the program of a function for arrays such as these, and its bytes; None for none.

    Raises:
      ConfigError: the file has one for other arrays.
    """
    found = self._saved.get(name)
    if found is not None:
      self.check(name, found['takes'], takes)
    key = name if found is not None else self._use(name, _key(name, about, takes))
    try:
      if key in self._ahead and (loaded := self._ahead.pop(key).result()) is not None:
        return loaded
      data = self._bytes(key)
      return None if data is None else (_load(data), data)
    except Exception as error:  # of any kind: then it is compiled, as if it had not been there
      _log.info('The program %r cannot be loaded (%s); it is compiled', name, first_line(error))
      return None

  def put(self, name: str, about: Mapping[str, Any], takes: Mapping[str, str], data: bytes) -> None:
    """Keeps a program in the user's folder, if there is one."""
    if (folder := compilation_cache.in_use()) is not None:
      folder.put(_key(name, about, takes), data)

  def _bytes(self, key: str) -> bytes | None:
    if key in self._saved:
      return self._saved[key]['data']
    folder = compilation_cache.in_use()
    return None if folder is None else folder.get(key)

  def _load_ahead(self) -> None:
    """Begins to load what will be asked for, of the file or of the last time."""
    folder = compilation_cache.in_use()
    if not self._saved and folder is not None and self._used_by:
      used = folder.get(_key(self._used_by, {}, {}))
      self._used = {} if used is None else json.loads(used)
    keys = list(self._saved or self._used.values())

    def load(key: str) -> tuple[Any, bytes] | None:
      data = self._bytes(key)
      return None if data is None else (_load(data), data)

    if keys:
      pool = concurrent.futures.ThreadPoolExecutor(1)
      self._ahead = {key: pool.submit(load, key) for key in keys}
      pool.shutdown(wait=False)

  def _use(self, name: str, key: str) -> str:
    """Notes that a function's program of this key is in use, for the next start."""
    folder = compilation_cache.in_use()
    if self._used.get(name) != key and folder is not None and self._used_by:
      self._used[name] = key
      folder.put(_key(self._used_by, {}, {}), json.dumps(self._used).encode())
    return key

  @property
  def there(self) -> bool:
    """Whether programs are kept anywhere."""
    return bool(self._saved) or compilation_cache.in_use() is not None


class Kept:
  """A compiled function whose programs are kept.

  Attributes:
    about: see `SavedPrograms.keep`.
    last: returns what the program that ran last takes, and its bytes; None before one ran.
  """

  def __init__(self, programs: SavedPrograms, name: str, function: Any, about: Mapping[str, Any]):
    """Binds a function to where its programs are."""
    self._programs, self._name, self._function, self.about = programs, name, function, about
    self._loaded: dict[str, tuple[Any, bytes]] = {}
    self.last: Callable[[], tuple[dict[str, str], bytes]] | None = None

  def __call__(self, *arrays: Any, **static: Any) -> Any:
    """Runs the program for arrays such as these; loads or compiles it where it is not there."""
    leaves = jax.tree.leaves(arrays)
    if any(isinstance(leaf, jax.core.Tracer) for leaf in leaves) or jax.process_count() > 1:
      return self._function(*arrays, **static)
    takes = _takes(arrays, static)
    if not self._programs.there:
      shapes, mesh = jax.tree.map(_shape, arrays), jax.sharding.get_mesh()
      self.last = lambda: (takes, self._compiled_for(mesh, shapes, static))
      return self._function(*arrays, **static)
    key = json.dumps(takes)
    if key not in self._loaded:
      loaded = self._programs.load(self._name, self.about, takes)
      self._loaded[key] = loaded or self._compile(arrays, static, takes)
    program, data = self._loaded[key]
    self.last = lambda: (takes, data)
    return program(*arrays)

  def _compile(
    self, arrays: Any, static: Mapping[str, Any], takes: dict[str, str] | None = None
  ) -> tuple[Any, bytes]:
    """Returns a new program and its bytes, b'' where its backend cannot write it; keeps it."""
    with compilation_cache.aside():
      program = self._function.lower(*arrays, **static).compile(compiler_options=_ANEW)
    data = _dump(program)
    if data and takes is not None:
      self._programs.put(self._name, self.about, takes, data)
    return program, data

  def _compiled_for(self, mesh: jax.sharding.Mesh, shapes: Any, static: Mapping[str, Any]) -> bytes:
    with contextlib.nullcontext() if mesh.empty else jax.set_mesh(mesh):
      return self._compile(shapes, static)[1]


def _shape(leaf: Any) -> jax.ShapeDtypeStruct:
  where = leaf.sharding if getattr(leaf, 'committed', False) else None
  return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=where)


def _takes(arrays: Any, static: Mapping[str, Any]) -> dict[str, str]:
  """Describes arguments: of arrays type, shape and place, of others the value."""
  found = {name: repr(value) for name, value in static.items()}
  mesh = jax.sharding.get_abstract_mesh()
  if not mesh.empty:
    found['mesh'] = str(mesh)
  for path, leaf in jax.tree_util.tree_flatten_with_path(arrays)[0]:
    place = f' {leaf.sharding}' if getattr(leaf, 'committed', False) else ''
    found[jax.tree_util.keystr(path)] = f'{leaf.dtype}{list(leaf.shape)}{place}'
  return found


def _key(name: str, about: Mapping[str, Any], takes: Mapping[str, str]) -> str:
  return _MAGIC.decode() + json.dumps([name, about, takes, surroundings()], sort_keys=True)


def _dump(program: Any) -> bytes:
  """Returns a program as bytes; none, which the log says, where its backend has no way to."""
  try:
    devices = [device.id for device in program.runtime_executable().local_devices()]
    return pickle.dumps((devices, *serialize_executable.serialize(program)))
  except Exception as error:  # of any kind, by backend
    _log.info('Programs of %s cannot be kept: %s', jax.default_backend(), first_line(error))
    return b''


def _load(data: bytes) -> Any:
  devices, serialized, *trees = pickle.loads(data)
  known = {device.id: device for device in jax.devices()}
  chosen = [known[each] for each in devices]
  return serialize_executable.deserialize_and_load(
    serialized, *trees, backend=chosen[0].client, execution_devices=chosen
  )


def _read(path: str | os.PathLike[str]) -> tuple[dict[str, Any], dict[str, Any]]:
  """Reads a file of programs: its header, and name -> program with its bytes.

  Raises:
    ConfigError: it cannot be read, is no such file, or is damaged.
  """
  name = repr(os.fspath(path))
  try:
    data = pathlib.Path(path).read_bytes()
  except OSError as error:
    raise ConfigError(
      f'cannot read the programs in {name}: {error.strerror}; give a file that --save_program wrote'
    ) from error
  if not data.startswith(_MAGIC):
    raise ConfigError(f'{name} holds no programs of mgjax; give a file that --save_program wrote')
  digest, body = data[len(_MAGIC) : len(_MAGIC) + _DIGEST], data[len(_MAGIC) + _DIGEST :]
  if hashlib.blake2b(body).digest() != digest:
    raise ConfigError(f'{name} is damaged or cut short; save it anew with --save_program')
  line, _, rest = body.partition(b'\n')
  header, programs = json.loads(line), {}
  for each, entry in header['programs'].items():
    programs[each] = {**entry, 'data': rest[: entry['size']]}
    rest = rest[entry['size'] :]
  return header, programs
