"""How a section initialises, imports and exports its weights."""

import contextlib
import functools
import pathlib
import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import numpy as np

from mgjax.core.errors import ConfigError, MgjaxError
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
  except MgjaxError:
    raise
  except Exception as error:  # a nonsensical model fails anywhere in Flax, JAX or numpy
    raise ConfigError(
      f'this version does not know the model that {what} describes: {error!r:.300}'
    ) from error


def number_in(
  config: Mapping[str, Any],
  name: str,
  otherwise: Any,
  *,
  least: float = 1,
  most: float = 2**31 - 1,
  whole: bool = True,
) -> Any:
  """Returns a number that a config.json of another project says.

  Args:
    config: the object in it.
    name: of the number.
    otherwise: what it is where config.json is silent, or says null.
    least: that it may be.
    most: that it may be.
    whole: whether it has to be a whole number.

  Raises:
    ConfigError: it is something else.
  """
  value = config.get(name)
  if value is None:
    return otherwise
  if not _is_number(value, whole) or not least <= value <= most:
    raise ConfigError(
      f'config.json has {name} = {value!r:.100}; expected a {"whole " * whole}number from '
      f'{least:g} to {most:g}: get it again'
    )
  return value


def check_description(
  fields: Mapping[str, Any], like: Mapping[str, Any], tensors: Mapping[str, np.ndarray]
) -> None:
  """Checks fields of a model that a file describes, before a module is made of them.

  The shapes of a model take time for each of its layers, and memory for some sizes; so no size may
  be above those of the file's tensors, and no number of layers above theirs.

  Args:
    fields: that the file describes.
    like: of a configuration of the same component: what stands there too is of the same kind.
    tensors: of the file.

  Raises:
    ConfigError: a field is of another kind, not finite, negative, or larger than the tensors say.
  """
  largest = max([_UNSEEN, *(size for tensor in tensors.values() for size in tensor.shape)])

  def check(place: str, value: Any, like: Any, deep: int) -> None:
    if isinstance(value, Mapping | list | tuple):
      kind = Mapping if isinstance(value, Mapping) else list | tuple
      if deep == _DEEP or len(value) > _MOST or not isinstance(like, kind | None):
        raise ConfigError(f'{place} = {value!r:.100}; expected such as {like!r:.100}')
      named = value.items() if isinstance(value, Mapping) else enumerate(value)
      for key, each in named:
        if not re.fullmatch(r'\w{1,64}', str(key), re.ASCII):
          raise ConfigError(f'{place} has the field {key!r:.100}; expected a name')
        check(
          f'{place}.{key}', each, like.get(key) if isinstance(like, Mapping) else None, deep + 1
        )
      return
    # A stack of layers is one; these are made one by one.
    counted = re.fullmatch(r'model\.blocks|model\..*\.depth', place)
    most = 1 if isinstance(value, float) else len(tensors) if counted else largest
    if not _is_like(value, like) or (_is_number(value, False) and not 0 <= value <= most):
      raise ConfigError(
        f'{place} = {value!r:.100}; expected such as {like!r:.100}, and from 0 to {most}, for the '
        'tensors of the file are no larger'
      )

  check('model', fields, like, 0)


_UNSEEN = 1 << 16  # a size that tensors need not show: tokens of a prompt
_DEEP, _MOST = 8, 64  # levels of a description, and entries of one


def _is_number(value: Any, whole: bool) -> bool:
  return isinstance(value, int if whole else int | float) and not isinstance(value, bool)


def _is_like(value: Any, like: Any) -> bool:
  if isinstance(value, str):
    return isinstance(like, str | None) and len(value) <= 64
  if value is None or like is None:
    return value is None or isinstance(value, bool | int | float)
  if isinstance(value, bool) or isinstance(like, bool | str):
    return type(value) is type(like)
  return _is_number(value, not isinstance(like, float))
