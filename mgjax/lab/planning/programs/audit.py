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

  Collectives that are on their way at once share the work of a place.
  """

  place: int
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
  found = []
  places = itertools.count()

  def visit(name: str, times: int, around: tuple[Scheduled, ...] | None) -> None:
    """Looks through a computation; `around` is what runs beside all of it, None if nothing may."""
    steps = program.computations.get(name, ())
    numbers = [next(places) for _ in steps]
    dones = _dones(steps)
    for index, step in enumerate(steps):
      if step.opcode == 'async-update' or (is_end(step, 'done') and step.called):
        continue  # it calls what its start has called
      beside = around
      if is_end(step, 'start'):
        # A start without a done in its computation hides nothing.
        inside = range(index + 1, dones.get(index, index + 1))
        works = ((numbers[i], counter.instruction(name, steps[i])) for i in inside)
        beside = tuple(Scheduled(place, work) for place, work in works if any(work.parts))
      kind = step.opcode.removesuffix('-start')
      if kind == 'all-reduce' and SCATTERED in name:
        kind = 'reduce-scatter'
      if kind in KINDS:
        found.append(_found(step, kind, times, beside))
      for called in step.called:
        if not called.startswith(BETWEEN):
          visit(called, times * program.turns(step), beside)

  visit(program.entry, 1, None)
  return found


def _dones(steps: Sequence[Instruction]) -> Mapping[int, int]:
  """Maps the index of every start of a computation to that of its done."""
  found = {}
  flying = {}
  for index, step in enumerate(steps):
    if is_end(step, 'start'):
      flying[step.name] = index
    elif step.name.startswith(DONE):  # a fusion, which reads what others between made of its start
      start = START + step.name.removeprefix(DONE)
      if start in flying:
        found[flying[start]] = index
    elif started := [flying[each] for each in step.operands if each in flying]:
      if step.opcode == 'async-update':
        flying[step.name] = started[0]
      elif is_end(step, 'done'):
        found[started[0]] = index
  return found


def _found(
  instruction: Instruction, kind: str, times: int, between: tuple[Scheduled, ...] | None
) -> CompiledCollective:
  arrays = [(place.dtype, place.bytes) for place in instruction.arrays]
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
