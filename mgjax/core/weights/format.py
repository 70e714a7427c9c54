"""How a section initialises, imports and exports its weights."""

import contextlib
import functools
import pathlib
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

import flax.linen as nn
import jax

from mgjax.core.errors import ConfigError
from mgjax.core.typing import Tree


class ImportedWeights(NamedTuple):
  """What was read from a file of another project.

  Attributes:
    model: all fields of `config.model`.
    params: of the model.
    notes: what goes along in every checkpoint and file: statistics of latents, or a source.
  """

  model: dict[str, Any]
  params: Tree
  notes: dict[str, Any]


class WeightFormat(NamedTuple):
  """The functions that initialise, read and write the weights of a section.

  Attributes:
    make: the module that `config.model` describes.
    init: model, notes, key -> its parameters.
    read: `(fields, path, *, seed, keep_type)` -> what is there: the fields of `config.model`, the
      seed of what the file lacks, and whether parameters stay in its types. None where no other
      project has such a model.
    form: the word for what `write` makes.
    folder: whether that is a folder, not a file.
    write: parameters, fields of `config.model`, notes and path -> what was written, for the log.
    noted: the names of notes that there must be.
    frozen: whether nothing trains it, and one copy of its parameters is enough.
    how: fields of `config.model` that say how it is computed, and stay as they are configured.
  """

  make: Callable[[Mapping[str, Any]], nn.Module]
  init: Callable[[Any, Mapping[str, Any], jax.Array], Tree]
  read: Callable[..., ImportedWeights] | None = None
  form: str = ''
  folder: bool = False
  write: Callable[[Tree, Mapping[str, Any], Mapping[str, Any], pathlib.Path], str] | None = None
  noted: tuple[str, ...] = ('latents',)
  frozen: bool = False
  how: tuple[str, ...] = ('dtype',)


def parameter_shapes(
  weight_format: WeightFormat, fields: Mapping[str, Any], notes: Mapping[str, Any]
) -> Tree:
  """Returns the shapes of the parameters of the model that fields of `config.model` describe."""
  init = functools.partial(weight_format.init, weight_format.make(fields), notes)
  return jax.eval_shape(init, jax.random.key(0))


@contextlib.contextmanager
def understanding(what: str) -> Iterator[None]:
  """Turns errors inside into a ConfigError: a description from outside was not understood.

  Args:
    what: that holds the description, for the message.
  """
  try:
    yield
  except (TypeError, KeyError, ValueError, AttributeError, ArithmeticError) as error:
    raise ConfigError(
      f'this version does not know the model that {what} describes: {error!r}'
    ) from error
