"""How pipelines are called: arguments under our names or those of diffusers, checked."""

import dataclasses
import functools
import inspect
import logging
import secrets
import typing
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

import numpy as np

from mgjax.core.configuration.keys import JSON, Fields
from mgjax.core.errors import ConfigError
from mgjax.core.settings import Count, Seed, checked
from mgjax.core.typing import Array
from mgjax.sections.flow.diffusers_names import INSTEAD, NAMES, renamed, unknown_option

_SETTINGS = ('steps', 'guidance', 'solver', 'schedule')  # of `load` that a call may change
FORMS = ('np', 'pil', 'latent')
Seeds = int | Sequence[int]
_Method = TypeVar('_Method', bound=Callable[..., Any])
_log = logging.getLogger(__name__)


class Preview:
  """What a batch looks like after a step: call it for videos uint8 (b t h w 3).

  Decoding costs time, and is done when it is called.

  Attributes:
    latents: (b t h w c) that the step predicts of the end, those that fill a batch up included.
  """

  def __init__(self, latents: Array, decode: Callable[[Array], np.ndarray]):
    self.latents = latents
    self._decode = decode

  def __call__(self) -> np.ndarray:
    return self._decode(self.latents)


Callback = Callable[[int, int, Preview], None]


def watched(
  callback: Callback | None, decode: Callable[[Array], np.ndarray]
) -> Callable[[int, int, Array], None] | None:
  """Returns what watches the steps of a sampler for a callback."""
  if callback is None:
    return None
  return lambda step, total, latents: callback(step, total, Preview(latents, decode))


def prompts_of(prompts: object) -> list[str]:
  """Returns prompts as a list, of one text. Raises ConfigError if they are something else."""
  if isinstance(prompts, str):
    return [prompts]
  found = list(prompts) if isinstance(prompts, list | tuple | np.ndarray) else []
  if not found or not all(isinstance(each, str) for each in found):
    shown = ' '.join(repr(prompts).split())  # of an array in one line
    raise ConfigError(f'prompts = {shown:.80}; expected text, or a list of texts')
  return [str(each) for each in found]


def seeds_for(seed: object, count: int) -> int | list[int]:
  """Returns a seed, or a list with one for each of `count`; None and -1 are drawn, and logged.
  Raises ConfigError for what is no seed, or not one for each.
  """
  if isinstance(seed, list | tuple | range | np.ndarray) and np.ndim(seed):
    if len(seed) != count:
      raise ConfigError(f'seed: {len(seed)} seeds for {count} prompts; give one, or one for each')
    return [seeds_for(each, 1) for each in seed]
  if seed is None or (isinstance(seed, int | np.integer) and seed == -1):
    seed = secrets.randbelow(2**31)
    _log.warning('seed = %d was drawn', seed)
  return int(checked(Seed, seed, 'seed'))


def _places(first: Any, count: int) -> int | list[int]:
  """Returns the index of the first of `count`, or that of each; raises ConfigError for others."""
  if not np.ndim(first):
    value = first.item() if isinstance(first, np.generic) else first
    return checked(Count, value, 'first')
  if len(first) < count:
    raise ConfigError(f'first: {len(first)} indices for {count} prompts; give one, or one for each')
  return [_places(each, 1) for each in first]


def rows_of(count: int, most: int) -> int:
  """Returns how many of `count` go through a model at once: 1, 2, 4, 8 or more, up to `most`.

  Each is a program of its own, so that a new count hardly ever compiles one. From 8 on it is the
  number that leaves the fewest rows empty.
  """
  powers = [1 << power for power in range(count.bit_length() + 1) if 1 << power <= most]
  enough = next((rows for rows in powers if rows >= count), most)
  large = [rows for rows in {*powers, enough} if 8 <= rows <= enough]
  return min(large, key=lambda rows: (-(-count // rows) * rows, -rows)) if large else enough


@dataclasses.dataclass(frozen=True)
class _Arguments:
  """What a method of a pipeline may be called with.

  Attributes:
    method: its name.
    own: parameters that it declares, `self` included.
    rest: the parameter that takes all other names, such as `**conditions`; None without one.
    positional: names that may be given by place.
    hints: name -> annotation without its range, which is long to read.
  """

  method: str
  own: Mapping[str, inspect.Parameter]
  rest: inspect.Parameter | None
  positional: tuple[str, ...]
  hints: Fields

  @classmethod
  def of(cls, method: Callable[..., object], like: Callable[..., object] | None) -> '_Arguments':
    """Reads the signature; what the method takes as `**options` are parameters of `like`."""
    parameters = dict(inspect.signature(method).parameters)
    positional = [n for n, each in parameters.items() if each.kind is each.POSITIONAL_OR_KEYWORD]
    hints: JSON = {}
    if like is not None:
      del parameters['options']
      parameters = {**inspect.signature(inspect.unwrap(like)).parameters, **parameters}
      hints = typing.get_type_hints(inspect.unwrap(like))
    rest = next((each for each in parameters.values() if each.kind is each.VAR_KEYWORD), None)
    own = {name: each for name, each in parameters.items() if each is not rest}
    hints |= typing.get_type_hints(inspect.unwrap(method))
    return cls(method.__name__, own, rest, tuple(positional[1:]), hints)

  def signature(self) -> inspect.Signature:
    """Returns the signature for `help`: with settings that a call may change, and all names."""
    more = [name for name in _SETTINGS if name not in self.own]
    more += [name for name, ours in NAMES.items() if ours in (*self.own, *_SETTINGS)]
    added = [inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=None) for name in more]
    shown = sorted([*self.own.values(), *added], key=lambda each: each.kind)
    shown += [self.rest] if self.rest else []
    plain = [each.replace(annotation=self.hints.get(each.name, each.annotation)) for each in shown]
    return inspect.Signature(plain)

  def by_name(self, args: Sequence[object], given: Fields) -> JSON:
    """Returns all arguments of a call under our names. Raises ConfigError if one is given twice."""
    placed = dict(zip(self.positional, args, strict=False))
    if len(args) > len(self.positional) or placed.keys() & given:
      raise ConfigError(
        f'{self.method} takes {" and ".join(self.positional)} by place, once, and all else by '
        'name, as in seed=0'
      )
    kept = {
      name: value for name, value in given.items() if value is not None or name not in INSTEAD
    }
    return renamed({**placed, **kept})

  def check(self, options: JSON, typed: Mapping[str, str], pipeline: Any) -> None:
    """Checks the arguments of a call and brings them into their form.

    `typed` are the names of the call, for messages. Raises ConfigError if an argument is unknown
    to the pipeline, of another type or out of range.
    """
    known = {*self.own, *_SETTINGS, *(pipeline.reads if self.rest else ())}
    open_ended = self.rest is not None and self.rest.name == 'options'
    if options.get('prompts') is not None:
      options['prompts'] = prompts_of(options['prompts'])
    count = len(options.get('prompts') or [''])
    for name, value in options.items():
      if name not in known and not open_ended:
        raise unknown_option(name, sorted(known - {'self'}), pipeline.noun)
      if name != 'prompts':
        hint = self.own[name].annotation if name in self.own else Any
        options[name] = checked(hint, _plain(name, value, count), typed.get(name, name))


def _plain(name: str, value: object, count: int) -> Any:
  """Returns an argument as Python's own types. Raises ConfigError for what it cannot be."""
  if name == 'seed':
    return seeds_for(value, count)
  if name == 'first':
    return _places(value, count)
  if name == 'callback' and value is not None and not callable(value):
    raise ConfigError(f'callback = {value!r:.80}; expected a function f(step, total, preview)')
  if name in ('shape', 'size') and isinstance(value, np.ndarray):
    return tuple(value.tolist())
  return value.item() if isinstance(value, np.generic) else value


def callable_as(method: _Method, like: Callable[..., object] | None = None) -> _Method:
  """Lets a method of a pipeline be called as users of diffusers would.

  Prompts may be one text, arguments may have the names of `NAMES`, those with a range are held to
  it, and steps, guidance, solver and schedule may differ from those of the pipeline. The signature
  that `help` shows has them all. What the method takes as `**options` are arguments of `like`.
  """
  arguments = _Arguments.of(method, like)
  settings = [name for name in _SETTINGS if name not in arguments.own]

  @functools.wraps(method)
  def called(self: Any, *args: object, **given: object) -> Any:
    typed = {NAMES.get(name, name): name for name in given}
    options = arguments.by_name(args, given)
    arguments.check(options, typed, self)
    changes = {name: options.pop(name) for name in settings if name in options}
    try:
      variant = self.variant(**changes)
    except ConfigError as error:
      renames = [f'{typed[n]}: ' for n in changes if typed.get(n, n) != n and n in str(error)]
      raise ConfigError(''.join(renames[:1]) + str(error)) from None
    return method(variant, **options)

  called.__signature__ = arguments.signature()  # type: ignore[attr-defined]
  return called  # type: ignore[return-value]
