"""Finds runs: by path, by the name of what mgjax ships, or near another place that was given."""

import contextlib
import itertools
import os
import pathlib

from mgjax.core.configuration.renamed_keys import migrate
from mgjax.core.errors import ConfigError
from mgjax.core.files import WRONG, read_json
from mgjax.core.run_names import is_name
from mgjax.training.checkpoints import published

SHIPPED = pathlib.Path(__file__).parents[2] / 'weights'
_SEARCHED, _NAMED = 200, 4  # entries of a folder that are looked at, and runs that are named


def find_run(name: str | os.PathLike[str]) -> pathlib.Path:
  """Returns the work directory of a name: a path, what mgjax ships or what is published.

  As 'digits/video'; 'hf://owner/name@revision' and 's3://bucket/run' are fetched
  (`training/checkpoints/published.py`). Raises ConfigError if the name fixes the run, but not what
  it names.
  """
  if is_name(name):
    published.check_pinned(os.fspath(name))
    return published.fetch(os.fspath(name))
  path = pathlib.Path(name)
  there = any(os.path.exists(path / part) for part in ('config.json', 'checkpoints'))
  return SHIPPED / name if ships(name) and not there else path


def ships(name: str | os.PathLike[str]) -> bool:
  """Says whether mgjax ships a run by a name, as 'digits/video'."""
  place = SHIPPED / name  # of an absolute path, that path
  inside = SHIPPED in place.parents and '..' not in place.parts
  return inside and os.path.isfile(place / 'config.json')


def coming_with_mgjax() -> str:
  """Says which names `find_run` knows."""
  return f'with mgjax come {", ".join(shipped_names())}'


def shipped_names() -> list[str]:
  """Lists the names of the runs that mgjax ships."""
  return sorted(
    path.parent.relative_to(SHIPPED).as_posix() for path in SHIPPED.rglob('config.json')
  )


def runs_near(folder: str | os.PathLike[str], component: str = '') -> str:
  """Asks whether one of the runs (of a component) in or beside a folder was meant; or is empty."""
  folder = pathlib.Path(folder)
  found = {}
  folder = folder if os.path.exists(folder) else folder.parent  # False of a name that is too long
  with contextlib.suppress(OSError):
    for path in itertools.islice(folder.iterdir(), _SEARCHED):
      if (path / 'config.json').is_file() and (trained := _component(path)):
        found |= {os.fspath(path): trained} if component in ('', trained) else {}
  names = [f'{name!r} ({found[name]})' if not component else repr(name) for name in sorted(found)]
  return f'did you mean {" or ".join(names[:_NAMED])}?' if names else ''


def _component(workdir: pathlib.Path) -> str:
  """What a run trained; '' where its config.json does not say."""
  try:
    component = migrate(read_json(workdir / 'config.json'))['component']
  except (ConfigError, *WRONG):
    return ''
  return component if isinstance(component, str) and component.isidentifier() else ''
