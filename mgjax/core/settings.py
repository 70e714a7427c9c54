"""Settings: dataclasses and modules for a configuration's fields, with a range for every number.

A field declares its range in its annotation:

  @dataclasses.dataclass(frozen=True)
  class Patience(Checked):
    patience: Count = 0
    factor: Annotated[float, Range(above=0, most=1)] = 0.5

`unpack` makes such a class of a group of fields in a configuration. `Checked` applies the same
ranges to objects that Python code makes; call `check` in a `__post_init__` with further conditions.
"""

import dataclasses
import inspect
import math
import numbers
import re
import types
import typing
from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, Any, TypeVar

import numpy as np
from ml_collections import ConfigDict

from mgjax.core.configuration.keys import JSON, LARGEST_INTEGER, LARGEST_SEED, Fields, did_you_mean
from mgjax.core.errors import ConfigError, check_one_of
from mgjax.core.precision import compute_type

_UNSEEN = 1 << 16  # a size that no tensor has to show, as tokens of a prompt
_DEEP, _MOST = 8, 64  # nesting levels of a description, and entries at one level
FURTHEST = 1e30  # limit of floats, so that float32 products stay finite
_WORDS = {int: 'a whole number', float: 'a number', str: 'text', bool: 'True or False'}
_UNIONS = (typing.Union, types.UnionType)
_Made = TypeVar('_Made')


@dataclasses.dataclass(frozen=True)
class Range:
  """The numbers that a field may have, as in `Annotated[int, Range(least=1)]`.

  `least` and `most` are allowed, `above` and `below` are not. Infinity needs `infinite`.
  """

  least: float | None = None
  above: float | None = None
  most: float | None = None
  below: float | None = None
  infinite: bool = False

  def admits(self, value: Any, whole: bool) -> bool:
    """Returns whether a value is in this range; True and False are not numbers."""
    kind = numbers.Integral if whole else numbers.Real
    if isinstance(value, bool) or not issubclass(type(value), kind):
      return False
    finite = abs(value) <= max(LARGEST_INTEGER if whole else FURTHEST, self.most or 0)  # nan is not
    if not finite and not (self.infinite and value == math.inf):
      return False
    return (
      (self.least is None or value >= self.least)
      and (self.above is None or value > self.above)
      and (self.most is None or value <= self.most)
      and (self.below is None or value < self.below)
    )

  def describe(self, whole: bool) -> str:
    """Describes the range, as in 'a finite number above 0 to 1'."""
    furthest = LARGEST_INTEGER if whole else None if self.infinite else FURTHEST
    most = furthest if self.most is None and self.below is None else self.most
    limits = {'from': self.least, 'above': self.above, 'to': most, 'below': self.below}
    bounds = [f'{word} {limit}' for word, limit in limits.items() if limit is not None]
    kind = 'a whole number' if whole else 'a number' if self.infinite else 'a finite number'
    return ' '.join([kind, *bounds])


Count = Annotated[int, Range(least=0)]
Positive = Annotated[int, Range(least=1)]
Seed = Annotated[int, Range(least=0, most=LARGEST_SEED)]  # of noise
Fraction = Annotated[float, Range(least=0, most=1)]
Strength = Annotated[float, Range(above=0, most=1)]
Magnitude = Annotated[float, Range(least=0)]
Finite = Annotated[float, Range()]


def fields_of(config: Fields | ConfigDict, name: str) -> JSON:
  """Returns a group of a configuration's fields as a dictionary. Raises ConfigError without it."""
  group = config.get(name)
  if not isinstance(group, Mapping | ConfigDict):
    actual = 'nothing' if group is None else repr(group)[:80]
    raise ConfigError(f'the configuration has {actual} as {name!r}; expected a group of fields')
  return group.to_dict() if isinstance(group, ConfigDict) else dict(group)


def unpack(make: Callable[..., _Made], fields: Fields, place: str, **more: object) -> _Made:
  """Makes an object of a group of fields of a configuration.

  `make` is a dataclass, a Linen module, or a function with annotated parameters. Values are
  converted as annotated: lists to tuples, dictionaries to dataclasses, names to array types.
  `place` is the group's key for messages, as in 'optimizer.plateau'. `more` are arguments that are
  not in the configuration. Raises ConfigError if a field is unknown, missing or out of range, or if
  fields contradict each other.
  """
  values = arguments(make, fields, place, tuple(more))
  try:
    return make(**values, **more)
  except ConfigError as error:
    raise ConfigError(f'{place}: {error}') from None


def unpack_kind(
  kinds: Mapping[str, Callable[..., _Made]],
  fields: Fields,
  place: str,
  default: str,
  **more: object,
) -> _Made:
  """Makes an object of the class in `kinds` that the field `kind` names, of the other fields.

  `default` is the kind of fields without one. `place`, `more` and errors are as in `unpack`; an
  unknown kind is a ConfigError too.
  """
  others = dict(fields)
  kind = others.pop('kind', default)
  check_one_of(f'{place}.kind = {kind!r:.80}', kind, kinds)
  return unpack(kinds[kind], others, place, **more)


def arguments(
  make: Callable[..., object], fields: Fields, place: str, given: Sequence[str] = ()
) -> JSON:
  """Returns checked fields as arguments of `make`, which gets those named in `given` elsewhere."""
  hints = {name: hint for name, hint in annotations(make).items() if name not in given}
  parameters = inspect.signature(make).parameters
  if not isinstance(fields, Mapping):
    raise ConfigError(f'{place} = {fields!r:.80}; expected fields with names')
  # A function with **keywords checks them itself.
  if any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values()):
    hints |= {str(name): Any for name in fields.keys() - hints.keys() - {*given}}
  for name in fields:
    if name not in hints:
      raise ConfigError(did_you_mean(f'{place}.{name}', [f'{place}.{hint}' for hint in hints]))
  for name in hints:
    if name not in fields and parameters[name].default is inspect.Parameter.empty:
      raise ConfigError(f'{place}.{name} is missing; give it a value')
  return {name: checked(hints[name], value, f'{place}.{name}') for name, value in fields.items()}


def defaults(make: type, **changes: object) -> ConfigDict:
  """Returns the group of fields that a configuration has for `make`, each at its default.

  `changes` replace defaults. Fields without either are left out. So are fields that may have
  several types, because a configuration keeps the type of a value. Raises ConfigError if `make` has
  no field of a name in `changes`.
  """
  hints = annotations(make)
  if unknown := sorted(changes.keys() - hints):
    raise ConfigError(did_you_mean(unknown[0], hints))
  values = dict(changes)
  for field in dataclasses.fields(make):
    hint = hints.get(field.name)
    kinds = typing.get_args(hint) if typing.get_origin(hint) in _UNIONS else ()
    if field.name in values or hint is None or len({*kinds} - {type(None)}) > 1:
      continue
    if field.default is not dataclasses.MISSING:
      values[field.name] = _plain(field.default, hint)
    elif field.default_factory is not dataclasses.MISSING:
      values[field.name] = _plain(field.default_factory(), hint)
  return ConfigDict(values)


def _plain(value: Any, hint: object) -> object:
  """Returns a default in the form that a configuration file has."""
  if dataclasses.is_dataclass(type(value)):
    return defaults(type(value), **dataclasses.asdict(value))
  if hint is np.dtype:
    return np.dtype(value).name
  number = typing.get_args(hint)[0] if typing.get_origin(hint) is Annotated else hint
  return float(value) if number is float else value  # flags would reject 0.5 for an integer 0


def check(settings: object) -> None:
  """Checks the fields of a dataclass. Raises ConfigError if a value is out of its range."""
  for name, hint in annotations(type(settings)).items():
    checked(hint, getattr(settings, name), name)


class Checked:
  """Base class of dataclasses; raises ConfigError if a field is out of its range."""

  def __post_init__(self):
    check(self)


def annotations(make: Callable[..., object]) -> JSON:
  """Returns the annotations of the fields of a class, or of the parameters of a function."""
  if dataclasses.is_dataclass(make):
    hints = {field.name: field.type for field in dataclasses.fields(make)}
    linen = ('parent', 'name') if 'parent' in hints else ()
    return {name: hint for name, hint in hints.items() if name not in linen}
  parameters = inspect.signature(make).parameters.values()
  return {
    parameter.name: parameter.annotation
    for parameter in parameters
    if parameter.kind is not parameter.VAR_KEYWORD
  }


def checked(hint: Any, value: Any, name: str) -> Any:
  """Converts a value as annotated. Raises ConfigError, with `name` first, if it does not fit."""
  origin, arguments = typing.get_origin(hint), typing.get_args(hint)
  if origin is Annotated:
    whole = arguments[0] is int
    for limits in arguments[1:]:
      if isinstance(limits, Range) and not limits.admits(value, whole):
        raise ConfigError(f'{name} = {value!r:.80}; expected {limits.describe(whole)}')
    numeric = any(isinstance(limits, Range) for limits in arguments[1:])
    return value if numeric else checked(arguments[0], value, name)
  if origin in _UNIONS:
    return _checked_union(arguments, value, name)
  if origin is tuple:
    return _checked_tuple(arguments, value, name)
  if isinstance(origin, type) and issubclass(origin, Mapping):
    if not isinstance(value, Mapping):
      raise ConfigError(f'{name} = {value!r:.80}; expected fields with names')
    return {key: checked(arguments[1], entry, f'{name}.{key}') for key, entry in value.items()}
  if isinstance(hint, type) and dataclasses.is_dataclass(hint) and isinstance(value, Mapping):
    return unpack(hint, value, name)
  if hint is np.dtype and not isinstance(value, type | np.dtype):
    return compute_type(str(value))
  if hint in _WORDS and not _is_of(hint, value):
    raise ConfigError(f'{name} = {value!r:.80}; expected {_WORDS[hint]}')
  return value


def _is_of(kind: type, value: object) -> bool:
  if kind in (str, bool):
    return isinstance(value, kind)
  return Range(infinite=True).admits(value, whole=kind is int)


def _checked_union(hints: Sequence[object], value: object, name: str) -> object:
  if value is None and type(None) in hints:
    return None
  errors = []
  several = isinstance(value, list | tuple)
  for hint in hints:
    try:
      if hint is not type(None):
        return checked(hint, value, name)
    except ConfigError as error:
      # The hint for several values explains best what is wrong with several values.
      errors.insert(0 if several and typing.get_origin(hint) is tuple else len(errors), error)
  raise errors[0]


def _checked_tuple(arguments: Sequence[object], value: object, name: str) -> tuple[object, ...]:
  open_ended = len(arguments) == 2 and arguments[1] is Ellipsis
  if not isinstance(value, list | tuple) or not (open_ended or len(value) == len(arguments)):
    expected = 'a list' if open_ended else f'{len(arguments)} values'
    raise ConfigError(f'{name} = {value!r:.80}; expected {expected}, as in (1, 2)')
  hints = [arguments[0]] * len(value) if open_ended else arguments
  return tuple(checked(hint, element, name) for hint, element in zip(hints, value, strict=True))


def check_sizes(fields: Fields, shapes: Mapping[str, Sequence[int]]) -> None:
  """Checks the sizes of a model that a file describes, before its module is built.

  Building a model takes time for each layer, and memory for some sizes. So no size may exceed the
  largest axis of the file's tensors, and no number of layers the number of tensors. Raises
  ConfigError if a number is larger, or the fields are too many or nested too deep.
  """
  largest = max([_UNSEEN, *(size for shape in shapes.values() for size in shape)])

  def check(path: str, value: object, depth: int) -> None:
    if isinstance(value, Mapping | list | tuple):
      if depth == _DEEP or len(value) > _MOST:
        raise ConfigError(f'{path} = {value!r:.100}; expected fewer fields')
      for key, entry in value.items() if isinstance(value, Mapping) else enumerate(value):
        if not re.fullmatch(r'\w{1,64}', str(key), re.ASCII):
          raise ConfigError(f'{path} has the field {key!r:.100}; expected a name')
        check(f'{path}.{key}', entry, depth + 1)
    elif isinstance(value, int):
      # Scanned layers are built once; these are built one by one.
      unrolled = re.fullmatch(r'model\.blocks|model\..*\.depth', path)
      if value > (most := len(shapes) if unrolled else largest):
        raise ConfigError(f'{path} = {value!r:.100}; the tensors of the file allow {most} at most')

  check('model', fields, 0)
