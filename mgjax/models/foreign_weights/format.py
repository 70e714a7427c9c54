"""How a section initialises, imports and exports its weights."""

import contextlib
import functools
import pathlib
import types
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import flax.linen as nn
import jax

from mgjax.core.configuration.keys import JSON, Fields
from mgjax.core.errors import ConfigError, MgjaxError
from mgjax.core.settings import checked
from mgjax.core.typing import Tree
from mgjax.models.foreign_weights.names import TensorName


class ImportedWeights(NamedTuple):
  """What was read from a file of another project."""

  model: JSON  # all fields of `config.model`
  params: Tree
  # What goes along in every checkpoint and file: statistics of latents, or a source.
  notes: JSON


class WeightFormat(NamedTuple):
  """The functions that initialise, read and write the weights of a section."""

  make: Callable[[Fields], nn.Module]  # the module that `config.model` describes
  init: Callable[[nn.Module, Fields, jax.Array], Tree]  # model, notes, key -> its parameters
  # `(fields, path, *, seed, keep_type)` -> what is there: the fields of `config.model`, the seed of
  # what the file lacks, and whether parameters stay in its types. None where no other project has
  # such a model.
  read: Callable[..., ImportedWeights] | None = None
  # By the names of formats of other projects: parameters, fields of `config.model`, notes and path
  # -> what was written, for the log.
  writers: Mapping[str, Callable[[Tree, Fields, Fields, pathlib.Path], str]] = (
    types.MappingProxyType({})
  )
  folder: bool = False  # whether they write a folder, not a file
  noted: tuple[str, ...] = ('latents',)  # the names of notes that there must be
  frozen: bool = False  # whether nothing trains it, and one copy of its parameters is enough
  # Fields of `config.model` that say how it is computed, and stay as they are configured.
  how: tuple[str, ...] = ('dtype',)
  # Fields of `config.model` -> the names that other projects give to its parameters. Files of
  # adapters are written and read by them; without them by our own.
  rows: Callable[[Fields], Sequence[TensorName]] = lambda _: ()


def parameter_shapes(weight_format: WeightFormat, fields: Fields, notes: Fields) -> Tree:
  """Returns the shapes of the parameters of the model that fields of `config.model` describe."""
  init = functools.partial(weight_format.init, weight_format.make(fields), notes)
  return jax.eval_shape(init, jax.random.key(0))


@contextlib.contextmanager
def understanding(what: str) -> Iterator[None]:
  """Turns errors inside into a ConfigError: `what` holds a description that was not understood."""
  try:
    yield
  except Exception as error:  # a nonsensical model fails anywhere in Flax, JAX or numpy
    why = error if isinstance(error, MgjaxError) else f'{error!r:.300}'
    raise ConfigError(
      f'this version does not know the model that {what} describes: {why}'
    ) from error


def config_number(config: Mapping[str, Any], name: str, otherwise: Any, limits: Any) -> Any:
  """Returns a number of another project's config.json, or `otherwise`. Raises ConfigError."""
  value = config.get(name)
  return otherwise if value is None else checked(limits, value, f'config.json has {name}')
