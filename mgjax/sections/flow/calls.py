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
from mgjax.sections.flow.diffusers_names import DIFFUSERS_NAMES, INSTEAD, renamed, unknown_option

_SETTINGS = ('steps', 'guidance', 'solver', 'schedule')  # of `load` that a call may change
OUTPUT_TYPES = ('np', 'pil', 'latent')
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


def watch_steps(
  callback: Callback | None, decode: Callable[[Array], np.ndarray]
) -> Callable[[int, int, Array], None] | None:
  """Returns what watches the steps of a sampler for a callback."""
  if callback is None:
    return None
  return lambda step, total, latents: callback(step, total, Preview(latents, decode))


def prompt_list(prompts: Any) -> list[str]:
  """Returns prompts as a list. Raises ConfigError if they are neither text nor texts."""
  if isinstance(prompts, str):
    return [prompts]
  texts = list(prompts) if isinstance(prompts, list | tuple | np.ndarray) else []
  if not texts or not all(isinstance(text, str) for text in texts):
    excerpt = ' '.join(repr(prompts).split())  # an array's repr has several lines
    raise ConfigError(f'prompts = {excerpt:.80}; expected text, or a list of texts')
  return [str(text) for text in texts]


def seeds_for(seed: object, count: int) -> int | list[int]:
  """Returns a seed, or a list with one for each of `count`; None and -1 are drawn, and logged.
  Raises ConfigError for what is no seed, or not one for each.
  """
  if isinstance(seed, list | tuple | range | np.ndarray) and np.ndim(seed):
    if len(seed) != count:
      raise ConfigError(f'seed: {len(seed)} seeds for {count} prompts; give one, or one for each')
    return [seeds_for(value, 1) for value in seed]
  if seed is None or (isinstance(seed, int | np.integer) and seed == -1):
    seed = secrets.randbelow(2**31)
    _log.warning('seed = %d was drawn', seed)
  return int(checked(Seed, seed, 'seed'))


def _check_indices(first: Any, count: int) -> Any:
  """Returns the index of the first of `count`, or that of each; raises ConfigError for others."""
  if not np.ndim(first):
    value = first.item() if isinstance(first, np.generic) else first
    return checked(Count, value, 'first')
  if len(first) < count:
    raise ConfigError(f'first: {len(first)} indices for {count} prompts; give one, or one for each')
  return [_check_indices(index, 1) for index in first]


def rows_of(count: int, most: int) -> int:
  """Returns how many of `count` go through a model at once: a power of two, up to `most`.

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
  def of(cls, method: Callable[..., Any], like: Callable[..., Any] | None) -> '_Arguments':
    """Reads the signature; the method's `**options` are parameters of `like`."""
    parameters = dict(inspect.signature(method).parameters)
    positional = [
      n for n, parameter in parameters.items() if parameter.kind is parameter.POSITIONAL_OR_KEYWORD
    ]
    hints: dict[str, Any] = {}
    if like is not None:
      del parameters['options']
      parameters = {**inspect.signature(inspect.unwrap(like)).parameters, **parameters}
      hints = typing.get_type_hints(inspect.unwrap(like))
    rest = next(
      (parameter for parameter in parameters.values() if parameter.kind is parameter.VAR_KEYWORD),
      None,
    )
    own = {name: parameter for name, parameter in parameters.items() if parameter is not rest}
    hints |= typing.get_type_hints(inspect.unwrap(method))
    return cls(method.__name__, own, rest, tuple(positional[1:]), hints)

  def signature(self) -> inspect.Signature:
    """Returns the signature for `help`, with per-call settings and alternative names."""
    extra_names = [name for name in _SETTINGS if name not in self.own]
    extra_names += [
      name for name, ours in DIFFUSERS_NAMES.items() if ours in (*self.own, *_SETTINGS)
    ]
    added = [
      inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=None) for name in extra_names
    ]
    parameters = sorted([*self.own.values(), *added], key=lambda parameter: parameter.kind)
    parameters += [self.rest] if self.rest else []
    plain = [
      parameter.replace(annotation=self.hints.get(parameter.name, parameter.annotation))
      for parameter in parameters
    ]
    return inspect.Signature(plain)

  def by_name(self, args: Sequence[Any], keywords: Mapping[str, Any]) -> dict[str, Any]:
    """Returns all arguments of a call under mgjax's names; ConfigError if one is given twice."""
    placed = dict(zip(self.positional, args, strict=False))
    if len(args) > len(self.positional) or placed.keys() & keywords:
      raise ConfigError(
        f'{self.method} takes {" and ".join(self.positional)} by place, once, and all else by '
        'name, as in seed=0'
      )
    named = {
      name: value for name, value in keywords.items() if value is not None or name not in INSTEAD
    }
    return renamed({**placed, **named})

  def check(self, options: JSON, typed: Mapping[str, str], pipeline: Any) -> None:
    """Checks the arguments of a call and brings them into their form.

    `typed` are the names of the call, for messages. Raises ConfigError if an argument is unknown
    to the pipeline, of another type or out of range.
    """
    known = {*self.own, *_SETTINGS, *(pipeline.reads if self.rest else ())}
    open_ended = self.rest is not None and self.rest.name == 'options'
    if options.get('prompts') is not None:
      options['prompts'] = prompt_list(options['prompts'])
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
    return _check_indices(value, count)
  if name == 'callback' and value is not None and not callable(value):
    raise ConfigError(f'callback = {value!r:.80}; expected a function f(step, total, preview)')
  if name in ('shape', 'size') and isinstance(value, np.ndarray):
    return tuple(value.tolist())
  return value.item() if isinstance(value, np.generic) else value


def callable_as(method: _Method, like: Callable[..., Any] | None = None) -> _Method:
  """Lets a method of a pipeline be called in the style of diffusers.

  Prompts may be one text, arguments may have the names of `DIFFUSERS_NAMES`, and their ranges are
  checked. Steps, guidance, solver and schedule may differ from those of the pipeline. The signature
  that `help` shows has them all. The method's `**options` are arguments of `like`.
  """
  arguments = _Arguments.of(method, like)
  settings = [name for name in _SETTINGS if name not in arguments.own]

  @functools.wraps(method)
  def called(self: Any, *args: Any, **keywords: Any) -> Any:
    typed = {DIFFUSERS_NAMES.get(name, name): name for name in keywords}
    options = arguments.by_name(args, keywords)
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
