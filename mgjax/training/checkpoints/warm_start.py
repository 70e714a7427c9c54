"""Initial parameters from other runs (`start_from`)."""

import logging
import os
import re
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

import jax

from mgjax.core.configuration.keys import did_you_mean
from mgjax.core.errors import ConfigError
from mgjax.core.tree import count_parameters, named_leaves, nest, subtrees, within
from mgjax.core.typing import Tree
from mgjax.nn.quantize import dequantised
from mgjax.parallel.shard import Place
from mgjax.training.checkpoints.load_params import load_params
from mgjax.training.checkpoints.workdir import read_config

_PART = re.compile('(?:([^=]*)=)?(.*)', re.DOTALL)  # subtree=directory, or a directory

_log = logging.getLogger(__name__)


def start_from(start: Tree, params: Tree) -> Tree:
  """Takes the parameters of other runs, and leaves that they lack from `params`, as initialised.

  Every such module is listed in the log. The model still answers what the other one does where new
  conditionings start neutral; new leaves in a module that the other one has are warned of. Floats
  become those of `params`. Raises ConfigError if they have leaves that this model does not, or of
  other shapes.
  """
  loaded = named_leaves(start)
  initial = named_leaves(params)
  for name in sorted(loaded):
    there = loaded[name].shape
    here = initial[name].shape if name in initial else 'absent'
    if there != here:
      unknown = '' if name in initial else _unknown(name, initial)
      raise ConfigError(
        f'config.start_from does not fit this model: {name} is {there} there and {here} here'
        f'{unknown}; the models may differ in model.positions, and this one may have more '
        'conditionings'
      )
  added = {name: leaf for name, leaf in initial.items() if name not in loaded}
  modules = {name.split('/')[0] for name in loaded}
  for name in sorted({new.split('/')[0] for new in added} - modules):
    _log.info('start_from has no %s: it begins as initialised', name)
  for name, leaf in added.items():
    if name.split('/')[0] in modules:
      _log.warning(
        'start_from has no %s %s: it begins as initialised, in a module that start_from has: the '
        'model may answer otherwise',
        name,
        tuple(leaf.shape),
      )
  if added:
    counts = (count_parameters(added), len(added), count_parameters(params))
    _log.info('%d new parameters in %d leaves, of %d in all', *counts)
  leaves = [
    loaded[name].astype(leaf.dtype) if name in loaded else leaf for name, leaf in initial.items()
  ]
  return jax.tree.unflatten(jax.tree.structure(params), leaves)


def _unknown(name: str, names: Iterable[str]) -> str:
  known = [*subtrees(names), *names]
  first = next((prefix for prefix in (*subtrees([name]), name) if prefix not in known), name)
  hint = did_you_mean(first, known).partition('; ')[2]
  return f' (it has no {first!r}{hint and f"; {hint}"})'


class WarmStartSource(NamedTuple):
  """Where the parameters of a subtree come from: a subtree, '' for all, of a run's parameters."""

  workdir: str
  subtree: str


def parse_sources(start_from: Any) -> dict[str, WarmStartSource]:
  """Parses `start_from` of a configuration: subtree of this model -> its source.

  It is the work directory of a run, '' for none; or subtree -> work directory, as a map or as text,
  'backbone=runs/video,text=runs/other:text'. The subtree '' is the whole model; 'directory:subtree'
  takes no more than a subtree of what the other run trained. A subtree comes after those that it
  lies in. Raises ConfigError if it is none of these.
  """
  if not start_from:
    return {}
  if isinstance(start_from, str):
    is_map = '=' in start_from and not os.path.isdir(start_from)
    parts = start_from.split(',') if is_map else [f'={start_from}']
    matches = (_PART.fullmatch(part.strip()) for part in parts)
    start_from = {match[1] or '': match[2] for match in matches if match}
  elif not hasattr(start_from, 'items'):
    raise ConfigError(f'config.start_from = {start_from!r}; expected a work directory or a map')
  sources = {}
  for subtree, value in sorted(start_from.items()):  # the outer one of two stands before the inner
    if not isinstance(value, str) or not value:
      raise ConfigError(
        f'config.start_from has {value!r} for {subtree!r}; expected the work directory of a run, '
        "or 'directory:subtree'"
      )
    workdir, colon, inside = ('', '', '') if os.path.isdir(value) else value.rpartition(':')
    has_no_subtree = not colon or re.match(r'[/\d]', inside)  # as in hf://owner/name
    sources[subtree.strip('/')] = (
      WarmStartSource(value, '') if has_no_subtree else WarmStartSource(workdir, inside)
    )
  return sources


def make_start(
  start_from: object,
  component: str,
  adapt: Callable[[Tree], Tree] = lambda params: params,
  others: Sequence[str] = (),
) -> Callable[[Place], Tree] | None:
  """Makes the `TrainSpec.start` that reads parameters of other runs; None without any run.

  The whole model may come from a run of `component` or one of `others`, and `adapt` is applied to
  its parameters; subtrees may come from any, also from imported weights. Of two subtrees the one
  inside the other counts there, whole: nothing of the outer one's is left in it.
  """
  sources = parse_sources(start_from)

  def start(sharding_of: Place) -> Tree:
    leaves: dict[str, Tree] = {}
    for subtree, source in sources.items():
      taken = _read(subtree, source, (component, *others), sharding_of)
      taken = taken if subtree else named_leaves(adapt(nest(taken)))
      leaves = {name: leaf for name, leaf in leaves.items() if not within(name, subtree)} | taken
    return nest(leaves)

  return start if sources else None


def _read(
  subtree: str, source: WarmStartSource, components: Sequence[str], sharding_of: Place
) -> dict[str, Tree]:
  """Reads the leaves of one source, under their names in this model."""
  workdir = source.workdir
  other = read_config(source.workdir).component
  if not subtree and not source.subtree and other not in components:
    expected = ' or '.join(map(repr, components))
    raise ConfigError(f'config.start_from={workdir!r} trained {other!r}, not {expected}')

  def here(name: str) -> str:
    rest = name.removeprefix(source.subtree).removeprefix('/')
    return '/'.join(filter(None, (subtree, rest)))

  placed = lambda name, shape: sharding_of(here(name), shape)  # noqa: E731
  try:
    params, _ = load_params(workdir, sharding_of=placed, subtree=source.subtree)
  except ConfigError as error:
    raise ConfigError(f'config.start_from: {workdir!r}: {error}') from error
  leaves = {here(name): leaf for name, leaf in named_leaves(dequantised(params)).items()}
  _log.info(
    'start_from: %s from %s: %d parameters in %d leaves',
    subtree or 'the whole model',
    ':'.join(filter(None, source)),
    count_parameters(params),
    len(leaves),
  )
  return leaves
