"""Lazy imports: the user's own functions, optional packages, and modules that few runs need."""

import functools
import importlib
import re
from collections.abc import Callable
from types import ModuleType
from typing import Any

from mgjax.core.errors import ConfigError, first_line, printable


class Later(ModuleType):
  """A module that is imported on the first access to one of its attributes, from any thread.

  `etils.epy.lazy_imports` makes the imports of all threads lazy while its block runs.
  """

  def __getattr__(self, name: str) -> Any:
    return getattr(importlib.import_module(self.__name__), name)


def load_object(place: str) -> Any:
  """Returns the object that `package.module:name` names, of mgjax's own tables."""
  module, _, name = place.partition(':')
  return getattr(importlib.import_module(module), name)


@functools.cache
def load_function(name: str) -> Callable[..., Any]:
  """Imports the function that 'package.module:function' names. Raises ConfigError if it fails."""
  if not re.fullmatch('[^:]+:[^:]+', name):
    raise ConfigError(f'plug-in {printable(name)!r}: expected package.module:function')
  try:
    loaded = load_object(name)
  except Exception as error:  # the user's module may raise anything
    raise ConfigError(
      f'plug-in {printable(name)!r} cannot be imported: {first_line(error)}; its package has to be '
      'installed, or its folder named in PYTHONPATH'
    ) from error
  if not callable(loaded):
    raise ConfigError(f'plug-in {printable(name)!r} is no function; expected one')
  return loaded


def load_package(name: str, purpose: str, extra: str) -> ModuleType:
  """Imports an optional package, for a purpose such as 'shots need PySceneDetect'.

  Raises ConfigError if it is not installed; the message names the extra that installs it.
  """
  try:
    return importlib.import_module(name)
  except ImportError:
    raise ConfigError(f"{purpose}, which is not installed: pip install 'mgjax[{extra}]'") from None
