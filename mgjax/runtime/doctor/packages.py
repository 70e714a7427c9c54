"""Installed versions against what mgjax asks for, and the extras that are missing."""

import functools
import importlib.metadata
import platform
import shlex
from collections.abc import Callable, Iterator

from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name

from mgjax.runtime.doctor.finding import Finding, optional, right, wrong

_NAME = 'mgjax'
# What the extras of setup.py are for.
PURPOSES = {
  'arcface': 'faces compared by networks of yours, for personalization',
  'compare': 'the page on which people compare videos',
  'cuda': 'NVIDIA GPUs',
  'curation': 'raw videos to training sets: shots, optical flow, text, copies',
  'dev': '`make lint`',
  'dlib': "faces by dlib's networks",
  'docs': '`make docs` and `make notebooks`',
  'faces': 'faces found without networks',
  'gcs': 'checkpoints at gs://',
  'oracle': '`make oracle`, comparison with the reference implementations',
  'parquet': 'clips in parquet files',
  'plots': 'pictures of experiments',
  'provenance': 'signatures of what leaves a pipeline (C2PA)',
  'scorers': 'scores of sounds by published networks',
  'test': '`make test`',
  'tpu': 'TPUs, and plans compiled for them',
}

# Gives the metadata of a distribution by its name; PackageNotFoundError where there is none.
Find = Callable[[str], importlib.metadata.Distribution]


def look_at_packages(find: Find = importlib.metadata.distribution) -> Iterator[Finding]:
  """Yields a line for Python, one for all packages that are needed or each that is wrong, extras.

  Args:
    find: gives the metadata of a distribution.
  """
  version = platform.python_version()
  try:
    ours = find(_NAME)
  except importlib.metadata.PackageNotFoundError:
    told = 'mgjax is not installed, so what it needs is not known'
    yield right('Python', version)
    yield optional('packages', told, 'python -m pip install -e . in its folder')
    return
  asked = ours.metadata['Requires-Python'] or ''
  if version in SpecifierSet(asked):
    yield right('Python', f'{version}, mgjax {ours.version}')
  else:
    yield wrong('Python', f'{version} is not {asked}', 'make a virtual environment with such a one')
  needed, extras = [], {name: [] for name in ours.metadata.get_all('Provides-Extra') or ()}
  for requirement in map(Requirement, ours.requires or ()):
    if requirement.marker is None or requirement.marker.evaluate({'extra': ''}):
      needed.append(requirement)
    for name in extras:
      if requirement.marker is not None and requirement.marker.evaluate({'extra': name}):
        extras[name].append(requirement)
  yield from _needed(needed, find)
  for name, requirements in sorted(extras.items()):
    missing = _missing(requirements, find)
    if missing:
      purpose = PURPOSES.get(name, 'an extra that this version does not know')
      what = ', '.join(requirement.name for requirement in missing)
      yield optional('extra', f'{name} ({purpose}) is missing {what}', _install(missing))


def _needed(requirements: list[Requirement], find: Find) -> Iterator[Finding]:
  missing = _missing(requirements, find)
  for requirement in missing:
    try:
      told = f'{requirement.name} {find(requirement.name).version} is not {requirement.specifier}'
    except importlib.metadata.PackageNotFoundError:
      told = f'{requirement.name} is not installed'
    yield wrong('packages', told, _install([requirement]))
  if not missing:
    jax = f', jax {find("jax").version}' if any(each.name == 'jax' for each in requirements) else ''
    yield right(
      'packages', f'all {len(requirements)} that mgjax asks for, and what these need{jax}'
    )


def _missing(requirements: list[Requirement], find: Find) -> list[Requirement]:
  """Returns those not met, of requirements and of all that the packages ask for themselves."""
  find = functools.cache(find)
  seen, missing, waiting = set(), {}, list(requirements)
  while waiting:
    requirement = waiting.pop(0)
    name = canonicalize_name(requirement.name)
    try:
      installed = find(name)
    except importlib.metadata.PackageNotFoundError:
      missing.setdefault(name, requirement)
      continue
    if not requirement.specifier.contains(installed.version, prereleases=True):
      missing.setdefault(name, requirement)
    for extra in {'', *requirement.extras} - {each for known, each in seen if known == name}:
      seen.add((name, extra))
      for need in map(Requirement, installed.requires or ()):
        if need.marker is None or need.marker.evaluate({'extra': extra}):
          waiting.append(need)
  return list(missing.values())


def _install(requirements: list[Requirement]) -> str:
  def text(requirement: Requirement) -> str:
    extras = f'[{",".join(sorted(requirement.extras))}]' * bool(requirement.extras)
    return shlex.quote(f'{requirement.name}{extras}{requirement.specifier}')

  return f'python -m pip install {" ".join(map(text, requirements))}'
