"""Reads the text of a compiled program: computations, instructions, arrays.

Constants may take many lines, some of which begin with '}': a computation ends where the next one
begins. Loops are `while` instructions whose condition holds the number of turns as a constant.
"""

import dataclasses
import functools
import itertools
import math
import re
from collections.abc import Iterator, Mapping

WIDTHS = {
  'pred': 1,
  's8': 1,
  'u8': 1,
  'f8e4m3fn': 1,
  'f8e5m2': 1,
  's16': 2,
  'u16': 2,
  'bf16': 2,
  'f16': 2,
  's32': 4,
  'u32': 4,
  'f32': 4,
  's64': 8,
  'u64': 8,
  'f64': 8,
}

_HEADER = re.compile(r'^(ENTRY )?%?([\w.\-]+) \(.*\{$')
_INSTRUCTION = re.compile(r'^\s+(ROOT )?%?([\w.\-]+) = (.*)$')
_ARRAY = re.compile(r'\b([a-z]+\d+\w*|pred)\[([\d,]*)\](\{[^}]*\})?')
_NAME = re.compile(r'%([\w.\-]+)')
_CALLED = re.compile(
  r'\b(body|condition|calls|to_apply|true_computation|false_computation)=%?([\w.\-]+)'
)
_BRANCHES = re.compile(r'\b(?:branch_computations|called_computations)=\{([^}]*)\}')
_TURNS = re.compile(r'"known_trip_count":\{"n":"(\d+)"')
_CONSTANT = re.compile(r'^[su](?:32|64)\[\]\S* constant\((\d+)\)')


@dataclasses.dataclass(frozen=True)
class Place:
  """One array: its type, its sizes, and whether it lies in the chip's large memory (HBM)."""

  dtype: str
  sizes: tuple[int, ...]
  large: bool

  @property
  def bytes(self) -> int:
    """Without padding."""
    return math.prod(self.sizes) * WIDTHS.get(self.dtype, 4)


@dataclasses.dataclass(frozen=True)
class Instruction:
  """'name = shape opcode(rest', in parts; `root` is the result of its computation."""

  name: str
  shape: str
  opcode: str
  rest: str
  root: bool

  @functools.cached_property
  def operands(self) -> tuple[str, ...]:
    """The names of what it reads."""
    depths = itertools.accumulate(({'(': 1, ')': -1}.get(c, 0) for c in self.rest), initial=1)
    end = next((index for index, depth in enumerate(depths) if depth == 0), len(self.rest))
    return tuple(_NAME.findall(self.rest[:end]))

  @functools.cached_property
  def arrays(self) -> tuple[Place, ...]:
    """The arrays of its result."""
    return tuple(arrays_of(self.shape))

  @functools.cached_property
  def called(self) -> tuple[str, ...]:
    """The names of the computations that it runs."""
    names = [match[2] for match in _CALLED.finditer(self.rest)]
    for match in _BRANCHES.finditer(self.rest):
      names += [name.strip().lstrip('%') for name in match[1].split(',')]
    return tuple(names)


@dataclasses.dataclass(frozen=True)
class Program:
  """Name of a computation -> its instructions in the order of the schedule; and where it begins."""

  computations: Mapping[str, tuple[Instruction, ...]]
  entry: str

  def turns(self, instruction: Instruction) -> int:
    """Returns how often the body of a `while` runs; 1 for all others.

    Programs for GPUs state it; in those for TPUs it is the constant of the loop's condition.
    """
    if instruction.opcode != 'while':
      return 1
    if count := _TURNS.search(instruction.rest):
      return int(count[1])
    names = [m[2] for m in _CALLED.finditer(instruction.rest) if m[1] == 'condition']
    constants = []
    while names:
      for step in self.computations.get(names.pop(), ()):
        names += step.called
        if match := _CONSTANT.match(f'{step.shape} {step.opcode}({step.rest}'):
          constants.append(int(match[1]))
    return max(constants, default=1)


def parse_program(hlo: str) -> Program:
  """Splits a program, as `compiled.as_text()` gives it, into computations."""
  computations: dict[str, list[Instruction]] = {}
  current: list[Instruction] = []
  entry = ''
  for line in hlo.splitlines():
    if header := _HEADER.match(line):
      current = computations.setdefault(header[2], [])
      entry = header[2] if header[1] else entry
    elif match := _INSTRUCTION.match(line):
      current.append(_instruction(match[2], match[3], bool(match[1])))
  return Program({name: tuple(instructions) for name, instructions in computations.items()}, entry)


def arrays_of(text: str) -> Iterator[Place]:
  """Yields the arrays that a text names, with layouts as 'bf16[8,128]{1,0:T(8,128)S(1)}'."""
  for match in _ARRAY.finditer(text):
    sizes = tuple(int(size) for size in match[2].split(',') if size)
    # S(1) is on the chip itself, S(5) the host's memory.
    yield Place(match[1], sizes, 'S(' not in (match[3] or ''))


def _instruction(name: str, text: str, root: bool) -> Instruction:
  """Splits 'shape opcode(operands), attributes'; the shape of several arrays is in brackets."""
  if text.startswith('('):
    depths = itertools.accumulate({'(': 1, ')': -1}.get(letter, 0) for letter in text)
    end = next((index for index, depth in enumerate(depths) if depth == 0), len(text))
    shape = text[: end + 1]
    rest = text[end + 2 :]
  else:
    shape, _, rest = text.partition(' ')
  opcode, _, rest = rest.partition('(')
  return Instruction(name, shape, opcode, rest, root)
