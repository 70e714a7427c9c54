"""Runs pickles of plain values, by a machine that can call nothing and set no attribute.

A pickle is a program. The standard library's machine calls what the program names, sets attributes
of what came back and hashes whatever it is given; each of these is a way into the process. This one
knows the instructions that PyTorch's pickles have, and for the names in them asks its caller.
"""

import pickletools
from collections.abc import Callable
from typing import Any, NamedTuple, TypeVar

LARGEST_PICKLE_BYTES = 16 << 20
# Each makes 200 bytes or less, and 10,000 tensors need so many.
MOST_INSTRUCTIONS = 400_000
_CONSTANTS = {'NONE': None, 'NEWTRUE': True, 'NEWFALSE': False, 'EMPTY_TUPLE': ()}
_KEYS = (str, int, float, bool, type(None))

_T = TypeVar('_T')


class PickledName(NamedTuple):
  """What a pickle names and nobody has looked up: a function, a class or anything else."""

  module: str
  name: str


def run_pickle(
  pickled: bytes, call: Callable[[PickledName, tuple[Any, ...]], Any], load: Callable[[Any], Any]
) -> Any:
  """Returns the value that a pickle makes.

  It is of None, truth values, numbers, texts, tuples, lists, dictionaries, names, and what `call`,
  of a name, and `load`, of what lies outside of the pickle, return. Attributes that a pickle gives
  to a dictionary are left out. Values may hold one another any number of times, and themselves:
  neither hash nor print what is not checked. Raises ValueError if an instruction is damaged, of
  another kind or one too many, or the pickle is larger than LARGEST, or LookupError if one takes
  what is not there.
  """
  if len(pickled) > LARGEST_PICKLE_BYTES:
    raise ValueError(
      f'its pickle has {len(pickled)} bytes, at most {LARGEST_PICKLE_BYTES} are read'
    )
  stack: list[Any] = []
  marks: list[int] = []
  memo: dict[int, Any] = {}

  def above_mark() -> list[Any]:
    start = marks.pop()
    values = stack[start:]
    del stack[start:]
    return values

  for count, (code, argument, _) in enumerate(pickletools.genops(pickled)):
    if count == MOST_INSTRUCTIONS:
      raise ValueError(f'its pickle has more than {MOST_INSTRUCTIONS} instructions')
    match code.name:
      case 'PROTO' | 'FRAME':
        pass
      case 'MARK':
        marks.append(len(stack))
      case 'NONE' | 'NEWTRUE' | 'NEWFALSE' | 'EMPTY_TUPLE':
        stack.append(_CONSTANTS[code.name])
      case 'BININT' | 'BININT1' | 'BININT2' | 'BINFLOAT':
        stack.append(argument)
      case 'BINUNICODE' | 'SHORT_BINUNICODE' | 'BINUNICODE8':
        stack.append(argument)
      case 'LONG1':
        if argument.bit_length() > 63:
          raise ValueError(f'its pickle has a number of {argument.bit_length()} bits')
        stack.append(argument)
      case 'EMPTY_LIST':
        stack.append([])
      case 'EMPTY_DICT':
        stack.append({})
      case 'TUPLE1' | 'TUPLE2' | 'TUPLE3':
        size = int(code.name[-1])
        stack[-size:] = [tuple(stack[-size:])]
      case 'TUPLE':
        stack.append(tuple(above_mark()))
      case 'APPEND':
        value = stack.pop()
        _exactly(list, stack[-1]).append(value)
      case 'APPENDS':
        values = above_mark()
        _exactly(list, stack[-1]).extend(values)
      case 'SETITEM':
        value, key = stack.pop(), stack.pop()
        _set(stack[-1], [key], [value])
      case 'SETITEMS':
        values = above_mark()
        _set(stack[-1], values[::2], values[1::2])
      case 'BINPUT' | 'LONG_BINPUT':
        memo[argument] = stack[-1]
      case 'MEMOIZE':
        memo[len(memo)] = stack[-1]
      case 'BINGET' | 'LONG_BINGET':
        stack.append(memo[argument])
      case 'GLOBAL':
        stack.append(PickledName(*argument.split(' ', 1)))
      case 'STACK_GLOBAL':
        name, module = _exactly(str, stack.pop()), _exactly(str, stack.pop())
        stack.append(PickledName(module, name))
      case 'BINPERSID':
        stack.append(load(stack.pop()))
      case 'REDUCE':
        arguments, name = _exactly(tuple, stack.pop()), _exactly(PickledName, stack.pop())
        stack.append(call(name, arguments))
      case 'BUILD':
        stack.pop()
        _exactly(dict, stack[-1])
      case 'STOP':
        return stack.pop()
      case unknown:
        raise ValueError(f'its pickle has the instruction {unknown}, which PyTorch does not write')
  raise ValueError('its pickle does not stop')


def _exactly(kind: type[_T], value: Any) -> _T:
  if type(value) is not kind:
    raise ValueError(f'its pickle takes a {type(value).__name__} for a {kind.__name__}')
  return value


def _set(target: object, keys: list[Any], values: list[Any]) -> None:
  # The hash of a deep tuple overflows the stack, that of one made of pairs of itself never ends.
  if not all(type(key) in _KEYS for key in keys):
    raise ValueError('its pickle has a dictionary with other keys than texts and numbers')
  _exactly(dict, target).update(zip(keys, values, strict=True))
