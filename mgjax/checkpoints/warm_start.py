"""Initial parameters from another run (`start_from`)."""

import logging
from collections.abc import Callable

import jax

from mgjax.checkpoints.workdir import load_params, read_config
from mgjax.core.errors import ConfigError
from mgjax.core.tree import count_parameters, named_leaves
from mgjax.core.typing import Tree
from mgjax.parallel.shard import Place

_log = logging.getLogger(__name__)


def start_from(start: Tree, params: Tree) -> Tree:
  """Takes the parameters of another run, and leaves that it lacks as they were initialised.

  Every such leaf is listed in the log. The model still answers what the other one does where new
  conditionings start neutral; new leaves in a module that the other one has are warned of.

  Args:
    start: of the other run, in any floating types.
    params: as initialised.

  Returns:
    Parameters of the structure and the types of `params`.

  Raises:
    ConfigError: the other run has leaves that this model does not, or of other shapes.
  """
  given, wanted = named_leaves(start), named_leaves(params)
  for name in sorted(given):
    there, here = given[name].shape, wanted[name].shape if name in wanted else 'absent'
    if there != here:
      raise ConfigError(
        f'config.start_from does not fit this model: {name} is {there} there and {here} here; the '
        'models may differ in model.positions, and this one may have more conditionings'
      )
  added = {name: leaf for name, leaf in wanted.items() if name not in given}
  modules = {name.split('/')[0] for name in given}
  for name, leaf in added.items():
    inside = name.split('/')[0] in modules
    _log.log(
      logging.WARNING if inside else logging.INFO,
      'start_from has no %s %s: it begins as initialised%s',
      name,
      tuple(leaf.shape),
      ', in a module that start_from has: the model may answer otherwise' if inside else '',
    )
  if added:
    counts = (count_parameters(added), len(added), count_parameters(params))
    _log.info('%d new parameters in %d leaves, of %d in all', *counts)
  leaves = [
    given[name].astype(leaf.dtype) if name in given else leaf for name, leaf in wanted.items()
  ]
  return jax.tree.unflatten(jax.tree.structure(params), leaves)


def make_start(
  start_from: str, component: str, adapt: Callable[[Tree], Tree] = lambda params: params
) -> Callable[[Place], Tree] | None:
  """Makes the `TrainSpec.start` that reads the parameters of another run; None without one.

  Args:
    start_from: its work directory, '' for none: `start_from` of a configuration.
    component: that both runs train.
    adapt: what is done to the parameters.
  """

  def start(place: Place) -> Tree:
    if (other := read_config(start_from).component) != component:
      raise ConfigError(f'config.start_from={start_from!r} trained {other!r}, not {component!r}')
    return adapt(load_params(start_from, place=place)[0])

  return start if start_from else None
