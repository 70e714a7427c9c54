"""Purpose, mesh axis and seconds of the collectives of a compiled program, what hides behind work,
and what is wrong.
"""

import math
from collections.abc import Callable, Mapping, Sequence

import jax.numpy as jnp

from mgjax.lab.planning.communication import Collective, exchange_seconds
from mgjax.lab.planning.efficiency import Ends, rates_of
from mgjax.lab.planning.network import AxisNetwork, axis_networks
from mgjax.lab.planning.programs.audit import CompiledCollective
from mgjax.lab.planning.programs.work import CUDNN, PALLAS, Work
from mgjax.lab.planning.workload import Workload
from mgjax.nn.attention import FEW_SCORES
from mgjax.nn.kernels import cudnn
from mgjax.parallel.chips import Topology

SMALL = 2**20  # bytes; below, collectives are reported together


def group_collectives(
  collectives: Sequence[CompiledCollective], sizes: Mapping[str, int], topology: Topology
) -> list[Collective]:
  """Sums collectives by purpose, kind and mesh axis, with the seconds that a step waits for."""
  axes = [axis_of(collective, sizes) for collective in collectives]
  wires = [
    _seconds(collective, _wires(axis, sizes, topology))
    for collective, axis in zip(collectives, axes, strict=True)
  ]
  waits = rates_of(topology.chip.name).map(
    lambda rates: waiting_seconds(
      collectives, wires, lambda work: work.seconds(rates, topology.chip)
    )
  )
  sums: dict[tuple[str, str, str, bool], list[float]] = {}
  for collective, *numbers in zip(collectives, axes, wires, waits.slow, waits.fast, strict=True):
    axis, *seconds = numbers
    entry = sums.setdefault(
      (purpose(collective), collective.kind, axis, collective.asynchronous), [0.0] * 5
    )
    for index, value in enumerate((collective.bytes, 1, *seconds)):
      entry[index] += value * collective.executions
  return [
    Collective(
      what,
      kind,
      axis,
      total,
      int(count),
      seconds,
      asynchronous,
      behind_attention=asynchronous and what == 'attention',
      scheduled=Ends(slow, fast),
    )
    for (what, kind, axis, asynchronous), (total, count, seconds, slow, fast) in sums.items()
  ]


def waiting_seconds(
  collectives: Sequence[CompiledCollective],
  wires: Sequence[float],
  seconds: Callable[[Work], float],
) -> list[float]:
  """Returns the seconds of one execution of every collective that no work hides.

    max(0, seconds on the wire - seconds of the work between start and done)

  for a collective by itself. If several are in flight, no work counts twice: the work at a position
  of the schedule hides those first that must end first, which minimises the wait (Glover's rule). A
  collective that waits inside another's flight is not counted as work.
  """
  remaining = list(wires)
  flying = {}
  works = {}
  for index, collective in enumerate(collectives):
    for scheduled in collective.between:
      flying.setdefault(scheduled.position, []).append(index)
      works[scheduled.position] = scheduled.work
  last = [
    collective.between[-1].position if collective.between else 0 for collective in collectives
  ]
  for position in sorted(works):
    time = seconds(works[position])
    for index in sorted(flying[position], key=lambda index: last[index]):
      used = min(time, remaining[index])
      time = time - used
      remaining[index] = remaining[index] - used
  return remaining


def purpose(collective: CompiledCollective) -> str:
  """Returns the purpose of a collective, read from where it is in the model."""
  *path, _ = collective.source.split('/') if collective.source else ['']
  inside = path[path.index('shard_map') - 1] if 'shard_map' in path[1:] else ''
  if inside == 'self_attention':
    return 'attention'
  if inside == 'cross_attention' or '/text/' in collective.source:
    return 'text'
  if collective.kind == 'reduce-scatter':
    return 'gradients'
  if inside and collective.kind == 'all-gather':
    return 'weights'
  return 'other'


def axis_of(collective: CompiledCollective, sizes: Mapping[str, int]) -> str:
  """Returns the mesh axis, or axes joined by '+', that a collective's groups lie along.

  Devices are numbered with the last axis fastest, so an axis has the stride of all after it.
  """
  order = [axis for axis in sizes if sizes[axis] > 1]
  stride = 1
  after = {}
  for axis in reversed(order):
    after[axis] = stride
    stride *= sizes[axis]
  for first in range(len(order)):
    for last in range(first, len(order)):
      axes = order[first : last + 1]
      size = math.prod(sizes[axis] for axis in axes)
      if (collective.group, collective.stride) == (size, after[axes[-1]]):
        return '+'.join(axes)
  # Parts of an axis: trading heads in groups, steps of a ring.
  within = [axis for axis in order if after[axis] <= collective.stride < after[axis] * sizes[axis]]
  return within[-1] if within else ''


def audit_failures(collectives: Sequence[CompiledCollective], matrix: int) -> list[str]:
  """Lists the collectives that move more than they should, a sentence each.

  Weights are gathered in the compute type and gradients scattered: nothing as large as `matrix`,
  the bytes of a layer's smallest one over tensor, travels as an all-reduce, nor in float32.
  """
  failures = []
  for collective in collectives:
    if collective.executions == 1 or collective.largest < matrix:
      continue
    size = f'{collective.largest / 2**20:.0f} MiB'
    if collective.kind == 'all-reduce':
      failures.append(f'FAIL an all-reduce of {size}: {collective.source or "?"}')
    elif collective.kind in ('all-gather', 'reduce-scatter') and collective.dtype == 'f32':
      failures.append(f'FAIL {collective.kind} in float32, {size}: {collective.source}')
  return sorted(set(failures))


def list_kernels(
  hlo: str, work: Workload, topology: Topology, *, trained: bool = True
) -> list[str]:
  """Lists the kernels of a program, with a 'FAIL' line if attention should be one and is not."""
  return _tpu_kernels(hlo, work) if topology.torus else _gpu_kernels(hlo, work, trained)


def _tpu_kernels(hlo: str, work: Workload) -> list[str]:
  """Lists the kernels of a program for TPUs, with a 'FAIL' line if attention should be one."""
  count = hlo.count(PALLAS)
  lines = [f'kernels: {count} of Pallas']
  if not count and _has_kernel(work):
    lines.append('FAIL attention is not a kernel of Pallas: its scores go through memory')
  return lines


def _gpu_kernels(hlo: str, work: Workload, trained: bool) -> list[str]:
  """Lists the kernels of a program for GPUs, with a 'FAIL' line if attention should be cuDNN's."""
  backward = hlo.count(f'{CUDNN}Backward"')
  forward = hlo.count(f'{CUDNN}"')
  products = hlo.count('custom_call_target="__cublas')
  lines = [
    f'kernels: attention of cuDNN {forward} times forward, {backward} backward; {products} '
    'products of cuBLAS'
  ]
  head = (1, work.tokens, work.heads, work.dim // work.heads)
  able = work.itemsize == 2 and cudnn.supported(head, head, jnp.bfloat16)
  if able and _has_kernel(work) and not (forward and backward >= trained):
    lines.append('FAIL attention is not a kernel of cuDNN: its scores go through memory')
  return lines


def _has_kernel(work: Workload) -> bool:
  """Whether scores are so many that attention is a kernel, where the configuration leaves it to."""
  return work.tokens**2 * work.heads >= FEW_SCORES and work.attention in ('auto', 'flash')


def _wires(axis: str, sizes: Mapping[str, int], topology: Topology) -> AxisNetwork | None:
  names = axis.split('+')
  if names == ['']:
    return None
  # Several axes together are like one on the wires of all.
  joined = dict.fromkeys(sizes, 1) | {
    name: size for name, size in sizes.items() if name not in names
  }
  joined[names[-1]] = math.prod(sizes[name] for name in names)
  return axis_networks(joined, topology).get(names[-1])


def _seconds(collective: CompiledCollective, wires: AxisNetwork | None) -> float:
  """Seconds of one execution."""
  if wires is None:
    return 0.0
  if collective.kind == 'collective-permute':
    return wires.permute(collective.bytes, 1)
  if collective.kind == 'all-to-all':
    return exchange_seconds(wires, collective.bytes, collective.group, 1)
  return wires.gather(collective.bytes, 1) * (2 if collective.kind == 'all-reduce' else 1)
