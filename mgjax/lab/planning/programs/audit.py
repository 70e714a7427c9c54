"""Reads the collectives of a compiled TPU program from its HLO text.

In this text a collective is one instruction (`all-gather`), or a start and a done
(`all-gather-start`), or stands in a computation that `async-start` or a fusion calls. An all-reduce
in a computation called `all-reduce-scatter` is a reduce-scatter of padded pieces. A gather that
runs beside other work is printed in every fusion that it passes through; the one that
`async-collective-start` calls counts. The text is scheduled: what it puts between a start and its
done runs while the collective is on its way, and nothing else does.
"""

import dataclasses
import itertools
import math
import re
from collections.abc import Mapping, Sequence

from mgjax.lab.planning.programs.hlo import Instruction, parse_program
from mgjax.lab.planning.programs.work import BETWEEN, Work, WorkCounter, is_end

KINDS = ('all-gather', 'reduce-scatter', 'all-reduce', 'all-to-all', 'collective-permute')
SCATTERED = 'all-reduce-scatter'
START = 'async-collective-start'
DONE = 'async-collective-done'

_SOURCE = re.compile(r'op_name="([^"]*)"')


@dataclasses.dataclass(frozen=True)
class Scheduled:
  """Work of one instruction that the schedule puts between a collective's start and its done.

  Collectives that are in flight together share the work at a `position` of the schedule.
  """

  position: int
  work: Work


@dataclasses.dataclass(frozen=True)
class CompiledCollective:
  """One collective instruction.

  Attributes:
    dtype: of the numbers that travel; of several arrays, the one with the most bytes.
    bytes: of one execution: the result of an all-gather, of others what one device puts in.
    executions: a step; an instruction in a loop runs once a turn.
    asynchronous: whether it starts and later ends, with or without work in between.
    group: devices that take part together, and `stride` between their numbers.
    largest: bytes of the largest array, of several that travel together.
    source: where in the model it comes from.
    between: the work between its start and its done.
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
  between: tuple[Scheduled, ...] = ()


def audit(hlo: str) -> list[CompiledCollective]:
  """Lists the collectives of a program, as `compiled.as_text()` of a TPU gives it."""
  program = parse_program(hlo)
  counter = WorkCounter(program)
  collectives = []
  positions = itertools.count()

  def visit(name: str, times: int, around: tuple[Scheduled, ...] | None) -> None:
    """Visits a computation; `around` is the work that runs beside all of it, None if none may."""
    steps = program.computations.get(name, ())
    numbers = [next(positions) for _ in steps]
    dones = _dones(steps)
    for index, step in enumerate(steps):
      if step.opcode == 'async-update' or (is_end(step, 'done') and step.called):
        continue  # it calls what its start has called
      beside = around
      if is_end(step, 'start'):
        # A start without a done in its computation hides nothing.
        inside = range(index + 1, dones.get(index, index + 1))
        works = ((numbers[i], counter.instruction(name, steps[i])) for i in inside)
        beside = tuple(Scheduled(position, work) for position, work in works if any(work.parts))
      kind = step.opcode.removesuffix('-start')
      if kind == 'all-reduce' and SCATTERED in name:
        kind = 'reduce-scatter'
      if kind in KINDS:
        collectives.append(_compiled_collective(step, kind, times, beside))
      for called in step.called:
        if not called.startswith(BETWEEN):
          visit(called, times * program.turns(step), beside)

  visit(program.entry, 1, None)
  return collectives


def _dones(steps: Sequence[Instruction]) -> Mapping[int, int]:
  """Maps the index of every start of a computation to that of its done."""
  dones = {}
  flying = {}
  for index, step in enumerate(steps):
    if is_end(step, 'start'):
      flying[step.name] = index
    elif step.name.startswith(DONE):  # a fusion, which reads what others between made of its start
      start = START + step.name.removeprefix(DONE)
      if start in flying:
        dones[flying[start]] = index
    elif started := [flying[operand] for operand in step.operands if operand in flying]:
      if step.opcode == 'async-update':
        flying[step.name] = started[0]
      elif is_end(step, 'done'):
        dones[started[0]] = index
  return dones


def _compiled_collective(
  instruction: Instruction, kind: str, times: int, between: tuple[Scheduled, ...] | None
) -> CompiledCollective:
  arrays = [(array.dtype, array.bytes) for array in instruction.arrays]
  if instruction.opcode.endswith('-start') and len(arrays) > 1:
    # (operands, results, contexts): what a start returns repeats what it was given.
    arrays = [array for array in arrays if array[0] not in ('u32',)] or arrays
    half = len(arrays) // 2
    arrays = arrays[half:] if kind != 'all-reduce' else arrays
  group, stride = _group(instruction.rest, kind)
  dtype = max(arrays, key=lambda array: array[1])[0]
  # The text gives the output; the input of a reduce-scatter is `group` times as large.
  factor = group if instruction.opcode.startswith('reduce-scatter') else 1
  sizes = [size * factor for _, size in arrays]
  match = _SOURCE.search(instruction.rest)
  source = match[1] if match else ''
  return CompiledCollective(
    kind,
    dtype,
    sum(sizes),
    times,
    between is not None,
    group,
    stride,
    max(sizes),
    source,
    between or (),
  )


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
    members = [int(member) for member in match[1].split(',')]
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
  dims = [int(dim) for dim in match[3].split(',')]
  order = [int(axis) for axis in match[4].split(',')] if match[4] else list(range(len(dims)))
  strides = [math.prod(dims[index + 1 :]) for index in range(len(dims))]
  # Neighbours within a group differ along the fastest axis longer than 1 of the transposed layout.
  fastest = next((index for index in reversed(order) if dims[index] > 1), order[-1])
  return size, strides[fastest] if size > 1 else 0
