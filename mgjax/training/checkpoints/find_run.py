"""Finds runs: by path, by the name of what mgjax ships, or by what another run's config names."""

import contextlib
import itertools
import os
import pathlib
from collections.abc import Callable, Sequence
from typing import TypeVar

from mgjax.core.configuration.renamed_keys import migrate
from mgjax.core.errors import ConfigError, first_line
from mgjax.core.files import WRONG, read_json
from mgjax.core.run_names import is_name
from mgjax.training.checkpoints import published
from mgjax.training.checkpoints.run_references import is_published, lies_within, may_lead_to

SHIPPED = pathlib.Path(__file__).parents[2] / 'weights'
_SEARCHED, _NAMED = 200, 4  # entries of a folder that are looked at, and runs that are named
_T = TypeVar('_T')


def find_run(name: str | os.PathLike[str]) -> pathlib.Path:
  """Returns the work directory of a name: a path, what mgjax ships or what is published.

  As 'digits/video'; 'hf://owner/name@revision' and 's3://bucket/run' are fetched
  (`training/checkpoints/published.py`). Raises ConfigError if the name fixes the run, but not what
  it names.
  """
  if is_name(name):
    published.check_pinned(os.fspath(name))
    return published.fetch_run(os.fspath(name))
  path = pathlib.Path(name)
  is_run = any(os.path.exists(path / part) for part in ('config.json', 'checkpoints'))
  return SHIPPED / name if ships(name) and not is_run else path


def ships(name: str | os.PathLike[str]) -> bool:
  """Says whether mgjax ships a run by a name, as 'digits/video'."""
  path = SHIPPED / name  # of an absolute path, that path
  inside = SHIPPED in path.parents and '..' not in path.parts
  return inside and os.path.isfile(path / 'config.json')


def coming_with_mgjax() -> str:
  """Returns a hint that lists the names of shipped runs."""
  return f'with mgjax come {", ".join(shipped_names())}'


def shipped_names() -> list[str]:
  """Lists the names of the runs that mgjax ships."""
  return sorted(
    path.parent.relative_to(SHIPPED).as_posix() for path in SHIPPED.rglob('config.json')
  )


def runs_near(folder: str | os.PathLike[str], component: str = '') -> str:
  """Returns a hint that names runs (of a component) in or beside a folder; '' if there are none."""
  folder = pathlib.Path(folder)
  runs = {}
  folder = folder if os.path.exists(folder) else folder.parent  # False of a name that is too long
  with contextlib.suppress(OSError):
    for path in itertools.islice(folder.iterdir(), _SEARCHED):
      if (path / 'config.json').is_file() and (trained := _component(path)):
        runs |= {os.fspath(path): trained} if component in ('', trained) else {}
  names = [f'{name!r} ({runs[name]})' if not component else repr(name) for name in sorted(runs)]
  return f'did you mean {" or ".join(names[:_NAMED])}?' if names else ''


def _component(workdir: pathlib.Path) -> str:
  """Returns the component of a run; '' if its config.json has none."""
  try:
    component = migrate(read_json(workdir / 'config.json'))['component']
  except (ConfigError, *WRONG):
    return ''
  return component if isinstance(component, str) and component.isidentifier() else ''


def read_needed(
  workdir: str | os.PathLike[str],
  reference: str | os.PathLike[str],
  noun: str,
  recorded: str | None,
  read: Callable[[pathlib.Path], tuple[_T, Sequence[str]]],
) -> _T:
  """Reads the run that a model needs: from its work directory, beside it, or where training did.

  The path that training used is tried last, because it may be relative. A published run reads from
  its own folder, or what `_outside` allows.

  Args:
    workdir: of the model.
    reference: the path or name that training used. Only the last part counts in the other folders.
    noun: for messages, as in 'the autoencoder'.
    recorded: the fingerprint of the run that training used; None accepts the first run found.
    read: path -> what it holds, and the fingerprints that match it.

  Raises:
    ConfigError: none of these folders holds the run that training used.
  """
  here = find_run(workdir).absolute()
  if not isinstance(reference, str | os.PathLike) or not pathlib.Path(reference).name:
    raise ConfigError(
      f'{os.fspath(workdir)!r}: {noun} is {reference!r:.80}; expected a path or a name'
    )
  name = pathlib.Path(reference).name
  candidates = [here / name]
  if not is_published(here):
    candidates += [here.parent / name, find_run(reference)]
  elif not lies_within(here, candidates[0]):
    candidates[0] = find_run(_outside(here, os.fspath(reference), noun))
  problems = {}
  for path in candidates:
    if path == here:  # the work directory may have the name of the run that it needs
      continue
    problems[os.fspath(path)] = 'nothing'
    if os.path.exists(path):
      try:
        content, fingerprints = read(path)
      except ConfigError as error:
        problems[os.fspath(path)] = first_line(error)
        continue
      if recorded in (None, *fingerprints):
        return content
      problems[os.fspath(path)] = (
        f'another, of the fingerprint {fingerprints[0]} (was it trained on?)'
      )
  fingerprint = '' if recorded is None else f', of the fingerprint {recorded},'
  raise ConfigError(
    f'{noun}{fingerprint} that {os.fspath(workdir)!r} learned with is not there; there is '
    f'{"; ".join(f"at {path!r} {problem}" for path, problem in problems.items())}. Put it at one '
    'of them'
  )


def find_beside(workdir: str | os.PathLike[str], reference: str) -> str:
  """Returns where a run reads another run that its own configuration names.

  That is a folder in its work directory with the last part of the path, or else the path itself.
  The name of a published run is never looked for in the work directory. Raises ConfigError if a
  published run names what `_outside` does not allow.
  """
  here = find_run(workdir).absolute()
  inside = here / pathlib.Path(reference).name
  contained = is_published(here)
  is_there = lies_within(here, inside) if contained else inside.exists()
  if reference and not is_name(reference) and is_there:
    return os.fspath(inside)
  noun = 'an expert or adapters (sample.expert, sample.lora, sample.expert_lora)'
  return _outside(here, reference, noun) if reference and contained else reference


def _outside(here: pathlib.Path, reference: str, noun: str) -> str:
  """Returns the path of what a published run names outside of its own folder.

  Allowed are runs that mgjax ships, and what `may_lead_to` says. Raises ConfigError otherwise.
  """
  if ships(reference):
    return os.fspath(SHIPPED / reference)
  if not may_lead_to(reference, published.origin_of(here)):
    raise ConfigError(
      f'{os.fspath(here)!r} is a published run, and its config.json has {noun} at '
      f'{reference!r:.200}; expected what lies in its folder, ships with mgjax, or is published on '
      'the Hub or beside it with its SHA-256. If you trust who published it, --allow_outside reads '
      'it'
    )
  return reference
