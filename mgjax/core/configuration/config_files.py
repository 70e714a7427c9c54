"""Finds configuration files by name or path, `digits/video` or `own.py:30b`, and reads them."""

import contextlib
import importlib.util
import os
import pathlib
import sys
from types import ModuleType

from ml_collections import ConfigDict

from mgjax.core.configuration.keys import Fields, did_you_mean, flatten
from mgjax.core.errors import ConfigError, first_line

_PACKAGE = pathlib.Path(__file__).parent.parent.parent
# The working directory first, then the folder of an installed mgjax, then that of a checkout.
_FOLDERS = (pathlib.Path('configs'), _PACKAGE / 'configs', _PACKAGE.parent / 'configs')


def find_config(name: str) -> pathlib.Path:
  """Finds the file of a configuration by its path, or its path within `configs/`, `.py` optional.

  Raises ConfigError if there is no such file.
  """
  stem = pathlib.Path(name if name.endswith('.py') else f'{name}.py')
  for path in (stem, *(folder / stem for folder in _FOLDERS)):
    if path.is_file():
      return path
  hint = did_you_mean(name.removesuffix('.py').removeprefix('configs/'), all_configs())
  hint = hint.partition('; ')[2]
  raise ConfigError(f'--config={name}: there is no such file; {hint or "see the folder configs/"}')


def all_configs() -> list[str]:
  """Lists the names of the configurations that `find_config` finds without a path."""
  files = {(folder, path) for folder in _FOLDERS for path in folder.rglob('*.py')}
  names = {
    path.relative_to(folder).with_suffix('').as_posix()
    for folder, path in files
    if path.stem != '__init__' and _has_config(path)
  }
  return sorted(names)


def _has_config(path: pathlib.Path) -> bool:
  try:  # opening a pipe would block until something writes to it
    return path.is_file() and b'get_config' in path.read_bytes()
  except OSError:
    return False


def load_config(name: str, changes: Fields | None = None) -> ConfigDict:
  """Loads a configuration file and applies changes, converted to the types of the file's values.

  `name` is a file as in `find_config`; `:argument` behind it is passed to `get_config`. `changes`
  maps keys to values, as in {'model.depth': 8}. Raises ConfigError if there is no such file or key,
  or `get_config` does not return a ConfigDict.
  """
  name, colon, argument = name.partition(':')
  path = find_config(name)
  working_directory = os.getcwd()
  try:
    with contextlib.redirect_stdout(sys.stderr):  # stdout is reserved for the command's output
      module = _execute(path)
      config = module.get_config(*([argument] if colon else []))
  except (ConfigError, KeyboardInterrupt):
    raise
  except BaseException as error:  # a configuration file is code: it may even exit
    raise ConfigError(
      f'--config={path}: {type(error).__name__}: {error}; expected get_config to return a '
      'ConfigDict'
    ) from error
  finally:
    os.chdir(working_directory)  # relative paths of the caller stay valid
  if not isinstance(config, ConfigDict):
    raise ConfigError(f'--config={path}: get_config gave {type(config).__name__}, not a ConfigDict')
  known = flatten(config.to_dict())
  for key, value in (changes or {}).items():
    if key not in known:
      raise ConfigError(did_you_mean(key, known))
    try:
      config.update_from_flattened_dict({key: value})
    except (TypeError, ValueError) as error:
      raise ConfigError(
        f'{key} = {value!r}: {first_line(error)}; the file has {known[key]!r}'
      ) from error
  return config


def _execute(path: pathlib.Path) -> ModuleType:
  """Runs a file as a module of its package, so that it can import modules beside it."""
  path = path.resolve()
  names = [path.stem]
  root = path.parent
  while (root / '__init__.py').exists():
    names.insert(0, root.name)
    root = root.parent
  if len(names) > 1 and os.fspath(root) not in sys.path:
    sys.path.append(os.fspath(root))
  spec = importlib.util.spec_from_file_location('.'.join(names), path)
  assert spec is not None and spec.loader is not None
  module = importlib.util.module_from_spec(spec)
  spec.loader.exec_module(module)
  return module
