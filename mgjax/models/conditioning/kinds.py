"""Registry of conditionings: makes the one that a configuration names by its `kind`.

A kind is a short name that outlives the layout of the source tree: the name of a file in this
folder or in one of its own, or one that another package registers. Names are only looked up;
nothing that a saved configuration says is imported or called by its path.
"""

import dataclasses
import importlib
import importlib.metadata
import pathlib
from collections.abc import Callable

from mgjax.core.configuration.keys import Fields, did_you_mean
from mgjax.core.errors import ConfigError
from mgjax.core.settings import unpack
from mgjax.models.conditioning.contract import Conditioning

ENTRY_POINTS = 'mgjax.conditionings'  # group of packaging entry points: kind -> class
_NOT_KINDS = {'__init__', 'clip_tokens', 'contract', 'kinds', 'number', 'ports'}
_registered: dict[str, type[Conditioning]] = {}


def register(kind: str) -> Callable[[type[Conditioning]], type[Conditioning]]:
  """Returns a class decorator that makes a conditioning of another package known as `kind`.

  A configuration file may call it, since it is Python. So that commands which read a finished run
  find the class too, an installed package names it among its entry points:

    entry_points={'mgjax.conditionings': ['depth_map = my_package.depth_map:DepthMap']}
  Raises ConfigError if mgjax or another package already has a conditioning of this kind.
  """

  def add(cls: type[Conditioning]) -> type[Conditioning]:
    known = _registered.get(kind)
    same = known is not None and (known.__module__, known.__qualname__) == (
      cls.__module__,
      cls.__qualname__,
    )
    if kind in built_in() or (known is not None and not same):
      raise ConfigError(f'there already is a conditioning of the kind {kind!r}; take another name')
    _registered[kind] = cls
    return cls

  return add


def make_conditioning(description: Fields, name: str, **handed: object) -> Conditioning:
  """Makes the module that `{'kind': ..., **fields}` describes.

  Args:
    name: of the module: parameters, dropout and guidance go by it.
    **handed: `dim`, `patch` and `dtype` of the backbone, of which it gets those that it declares.

  Raises:
    ConfigError: no conditioning of this kind is known, or it does not take the fields.
  """
  fields = {key: value for key, value in description.items() if key != 'kind'}
  cls = find(str(description.get('kind', '')))
  declared = {field.name for field in dataclasses.fields(cls)}
  more = {key: value for key, value in handed.items() if key in declared}
  return unpack(cls, fields, f'model.conditionings.{name}', name=name, **more)


def find(kind: str) -> type[Conditioning]:
  """Returns the class of a kind. Raises ConfigError if there is none."""
  if kind in _registered:
    return _registered[kind]
  if kind in built_in():
    module = importlib.import_module(built_in()[kind])
    return getattr(module, ''.join(word.capitalize() for word in kind.split('_')))
  entries = {entry.name: entry for entry in importlib.metadata.entry_points(group=ENTRY_POINTS)}
  if kind in entries:
    return entries[kind].load()
  known = sorted(built_in().keys() | _registered.keys() | entries.keys())
  raise ConfigError(
    f'{did_you_mean(kind, known).replace("unknown key", "unknown conditioning")} '
    f'(known: {", ".join(known)}). If another package defines it, install that package, or import '
    'it first, so that mgjax.models.conditioning.kinds.register is called'
  )


def built_in() -> dict[str, str]:
  """Returns the kinds of this folder and of those in it, with the names of their modules."""
  modules: dict[str, str] = {}
  for folder in importlib.import_module('mgjax.models.conditioning').__path__:
    for path in sorted(pathlib.Path(folder).rglob('*.py')):
      inside = path.relative_to(folder).with_suffix('').parts
      modules[path.stem] = '.'.join(('mgjax.models.conditioning', *inside))
  return {kind: module for kind, module in modules.items() if kind not in _NOT_KINDS}
