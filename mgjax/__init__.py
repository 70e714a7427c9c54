"""mgjax: Movie Gen (arXiv 2410.13720) in JAX and Flax.

Everything here is imported when it is first used: `import mgjax` alone brings no JAX.
"""

# ruff: noqa: F401

import sys

from etils import epy

from mgjax import moved
from mgjax.core.version import __version__

sys.meta_path.append(moved.Finder())  # for one release, old names of modules lead to new ones

with epy.lazy_api_imports(globals()):
  from mgjax import (
    apps,
    core,
    data,
    experimental,
    flow,
    lab,
    models,
    nn,
    parallel,
    registry,
    sections,
    training,
  )
  from mgjax.api import config, evaluate, list_models, load, plan, train
  from mgjax.data.media.show import save, show

_lazy = globals().pop('__getattr__')


def __getattr__(name: str):
  try:
    return _lazy(name)
  except AttributeError as error:
    if not name.startswith('_'):
      from mgjax.sections.flow.diffusers_names import instead_of

      if hint := instead_of(name):
        raise AttributeError(f'{error}; {hint}') from None
    raise
