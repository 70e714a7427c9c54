"""Does something as soon as a module has been imported, by whomever."""

import importlib.abc
import importlib.util
import sys
from collections.abc import Callable


def when_imported(name: str, *actions: Callable[[], object]) -> None:
  """Runs actions at the end of the first import of a top-level module; at once if that was."""
  if name in sys.modules:
    for action in actions:
      action()
  else:
    sys.meta_path.insert(0, _Finder(name, actions))


class _Finder(importlib.abc.MetaPathFinder):
  """Finds one module, with the help of the finders behind it, and adds to what executes it."""

  def __init__(self, name: str, actions: tuple[Callable[[], object], ...]):
    self._name, self._actions = name, actions

  def find_spec(self, fullname, path, target=None):
    if fullname != self._name:
      return None
    sys.meta_path.remove(self)
    spec = importlib.util.find_spec(fullname)
    if spec is None or spec.loader is None:
      return spec
    execute = spec.loader.exec_module

    def execute_and_act(module) -> None:
      execute(module)
      for action in self._actions:
        action()

    spec.loader.exec_module = execute_and_act
    return spec
