"""Reads the collectives of a compiled TPU program from its HLO text.

In this text a collective is one instruction (`all-gather`), or a start and a done
(`all-gather-start`), or stands in a computation that `async-start` or a fusion calls. An all-reduce
in a computation called `all-reduce-scatter` is a reduce-scatter of padded pieces. A gather that
runs beside other work is printed in every fusion that it passes through; the one that
`async-collective-start` calls counts. Loops are `while` instructions whose condition holds the
number of turns as a constant. Constants may take many lines, some of which begin with '}'.
"""

import dataclasses
import itertools
import math
import re
from collections.abc import Iterator, Mapping

KINDS = ('all-gather', 'reduce-scatter', 'all-reduce', 'all-to-all', 'collective-permute')
WIDTHS = {
  'pred': 1, 's8': 1, 'u8': 1, 'f8e4m3fn': 1, 'f8e5m2': 1, 's16': 2, 'u16': 2, 'bf16': 2, 'f16': 2,
  's32': 4, 'u32': 4, 'f32': 4, 's64': 8, 'u64': 8, 'f64': 8,
}  # fmt: skip

SCATTERED = 'all-reduce-scatter'
START, BETWEEN, DONE = 'async-collective-start', 'async_collective_fusion', 'async-collective-done'

_HEADER = re.compile(r'^(ENTRY )?%?([\w.\-]+) \(.*\{$')
_INSTRUCTION = re.compile(r'^\s+(?:ROOT )?%?([\w.\-]+) = (.*)$')
_ARRAY = re.compile(r'\b([a-z]+\d+\w*|pred)\[([\d,]*)\]')
_CALLED = re.compile(
  r'\b(body|condition|calls|to_apply|true_computation|false_computation)=%?([\w.\-]+)'
)
_BRANCHES = re.compile(r'\b(?:branch_computations|called_computations)=\{([^}]*)\}')
_CONSTANT = re.compile(r'^[su](?:32|64)\[\]\S* constant\((\d+)\)')
_SOURCE = re.compile(r'op_name="([^"]*)"')


@dataclasses.dataclass(frozen=True)
class CompiledCollective:
  """One collective instruction.

  Attributes:
    kind: one of `KINDS`.
    dtype: of the numbers that travel; of several arrays, the one with the most bytes.
    bytes: of one execution: the result of an all-gather, of others what one device puts in.
    executions: a step; an instruction in a loop runs once a turn.
    asynchronous: whether other instructions run between its start and its end.
    group: devices that take part together, and `stride` between their numbers.
    stride: see `group`.
    largest: bytes of the largest array, of several that travel together.
    source: where in the model it comes from.
  """

  kind: str
  dtype: str
  bytes: int
  executions: int
  asynchronous: bool
  group: int
  stride: int
  largest: int
  source: str


@dataclasses.dataclass(frozen=True)
class _Instruction:
  name: str
  shape: str
  opcode: str
  rest: str


def audit(hlo: str) -> list[CompiledCollective]:
  """Lists the collectives of a program, as `compiled.as_text()` of a TPU gives it."""
  computations, entry = _parse(hlo)
  found = []
  for name, (times, inside) in _executions(computations, entry).items():
    for instruction in computations[name]:
      kind, start = _kind(instruction.opcode)
      if kind == 'all-reduce' and SCATTERED in name:
        kind = 'reduce-scatter'
      if kind:
        found.append(_found(instruction, kind, times, start or inside))
  return found


def _kind(opcode: str) -> tuple[str, bool]:
  start = opcode.endswith('-start')
  base = opcode.removesuffix('-start')
  return (base, start) if base in KINDS else ('', False)


def _parse(hlo: str) -> tuple[dict[str, list[_Instruction]], str]:
  """Splits a program into computations; a computation ends where the next one begins."""
  computations: dict[str, list[_Instruction]] = {}
  current: list[_Instruction] = []
  entry = ''
  for line in hlo.splitlines():
    if header := _HEADER.match(line):
      current = computations.setdefault(header[2], [])
      entry = header[2] if header[1] else entry
    elif match := _INSTRUCTION.match(line):
      current.append(_instruction(match[1], match[2]))
  return computations, entry


def _instruction(name: str, text: str) -> _Instruction:
  """Splits 'shape opcode(operands), attributes'; the shape of several arrays is in brackets."""
  if text.startswith('('):
    depths = itertools.accumulate({'(': 1, ')': -1}.get(letter, 0) for letter in text)
    end = next((index for index, depth in enumerate(depths) if depth == 0), len(text))
    shape, rest = text[: end + 1], text[end + 2 :]
  else:
    shape, _, rest = text.partition(' ')
  opcode, _, rest = rest.partition('(')
  return _Instruction(name, shape, opcode, rest)


def _executions(
  computations: Mapping[str, list[_Instruction]], entry: str
) -> dict[str, tuple[int, bool]]:
  """Maps a computation to how often it runs, and whether it does so beside others."""
  times: dict[str, tuple[int, bool]] = {}

  def visit(name: str, count: int, beside: bool) -> None:
    before, was_beside = times.get(name, (0, False))
    times[name] = (before + count, was_beside or beside)
    for instruction in computations.get(name, ()):
      if instruction.opcode in ('async-update', 'async-done') or instruction.name.startswith(DONE):
        continue  # it calls what its start has called
      turns = _turns(instruction, computations)
      apart = beside or instruction.opcode == 'async-start' or instruction.name.startswith(START)
      for called in _called(instruction):
        if not called.startswith(BETWEEN):
          visit(called, count * turns, apart)

  visit(entry, 1, False)
  return {name: value for name, value in times.items() if name in computations}


def _called(instruction: _Instruction) -> Iterator[str]:
  for match in _CALLED.finditer(instruction.rest):
    yield match[2]
  for match in _BRANCHES.finditer(instruction.rest):
    yield from (name.strip().lstrip('%') for name in match[1].split(','))


def _turns(instruction: _Instruction, computations: Mapping[str, list[_Instruction]]) -> int:
  """The constant that the condition of a `while` compares with; 1 for other instructions."""
  if instruction.opcode != 'while':
    return 1
  condition = next(m[2] for m in _CALLED.finditer(instruction.rest) if m[1] == 'condition')
  names, constants = [condition], []
  while names:
    for each in computations.get(names.pop(), ()):
      names += _called(each)
      if match := _CONSTANT.match(f'{each.shape} {each.opcode}({each.rest}'):
        constants.append(int(match[1]))
  return max(constants, default=1)


def _found(
  instruction: _Instruction, kind: str, times: int, asynchronous: bool
) -> CompiledCollective:
  arrays = [(match[1], _bytes(match)) for match in _ARRAY.finditer(instruction.shape)]
  if instruction.opcode.endswith('-start') and len(arrays) > 1:
    # (operands, results, contexts): what a start returns repeats what it was given.
    arrays = [each for each in arrays if each[0] not in ('u32',)] or arrays
    half = len(arrays) // 2
    arrays = arrays[half:] if kind != 'all-reduce' else arrays
  group, stride = _group(instruction.rest, kind)
  dtype = max(arrays, key=lambda each: each[1])[0]
  # The text gives what comes out; what goes into a reduce-scatter is the whole.
  whole = group if instruction.opcode.startswith('reduce-scatter') else 1
  sizes = [each * whole for _, each in arrays]
  match = _SOURCE.search(instruction.rest)
  source = match[1] if match else ''
  return CompiledCollective(
    kind, dtype, sum(sizes), times, asynchronous, group, stride, max(sizes), source
  )


def _bytes(match: re.Match) -> int:
  sizes = [int(size) for size in match[2].split(',') if size]
  return math.prod(sizes) * WIDTHS.get(match[1], 4)


def _group(text: str, kind: str) -> tuple[int, int]:
  """Reads the devices of one group, in any of the ways that groups are written."""
  if kind == 'collective-permute':
    pairs = re.search(r'source_target_pairs=\{\{(\d+),(\d+)\}', text)
    return 0, abs(int(pairs[2]) - int(pairs[1])) if pairs else 0
  if match := re.search(r'replica_groups=mesh\[([^\]]*)\] \{([^}]*)\}', text):
    return _of_mesh(match[1], match[2])
  if match := re.search(r'replica_groups=\[(\d+),(\d+)\]<=\[([\d,]+)\](?:T\(([\d,]+)\))?', text):
    return _of_iota(match)
  if match := re.search(r'replica_groups=\{\{([\d,]+)\}', text):
    members = [int(each) for each in match[1].split(',')]
    return len(members), members[1] - members[0] if len(members) > 1 else 0
  return 1, 0


def _of_mesh(axes: str, names: str) -> tuple[int, int]:
  """mesh['a'=4,'b'=2] {'b'}: groups along some axes of a mesh of all devices, last one fastest."""
  sizes = {name: int(size) for name, size in re.findall(r"'([^']+)'=(\d+)", axes)}
  chosen = re.findall(r"'([^']+)'", names)
  order = list(sizes)
  last = max(order.index(name) for name in chosen)
  stride = math.prod(sizes[name] for name in order[last + 1 :])
  return math.prod(sizes[name] for name in chosen), stride


def _of_iota(match: re.Match) -> tuple[int, int]:
  """[groups,size]<=[dims]T(order): devices counted, laid out as dims, transposed, cut in groups."""
  size = int(match[2])
  dims = [int(each) for each in match[3].split(',')]
  order = [int(each) for each in match[4].split(',')] if match[4] else list(range(len(dims)))
  strides = [math.prod(dims[index + 1 :]) for index in range(len(dims))]
  # Neighbours within a group differ along the fastest axis longer than 1 of the transposed layout.
  fastest = next((index for index in reversed(order) if dims[index] > 1), order[-1])
  return size, strides[fastest] if size > 1 else 0
