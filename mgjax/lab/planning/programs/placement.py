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
from mgjax.lab.planning.programs.work import CUDNN, Work
from mgjax.lab.planning.workload import Workload
from mgjax.nn.attention import FEW_SCORES
from mgjax.nn.kernels import cudnn
from mgjax.parallel.chips import Topology

SMALL = 2**20  # bytes; below, collectives are reported together


def group_collectives(
  found: Sequence[CompiledCollective], sizes: Mapping[str, int], topology: Topology
) -> list[Collective]:
  """Sums collectives by purpose, kind and mesh axis, with what is waited for of each."""
  axes = [axis_of(each, sizes) for each in found]
  wires = [
    _seconds(each, _wires(axis, sizes, topology)) for each, axis in zip(found, axes, strict=True)
  ]
  waits = rates_of(topology.chip.name).map(
    lambda rates: waiting_seconds(found, wires, lambda work: work.seconds(rates, topology.chip))
  )
  sums: dict[tuple[str, str, str, bool], list[float]] = {}
  for each, *numbers in zip(found, axes, wires, waits.slow, waits.fast, strict=True):
    axis, *seconds = numbers
    entry = sums.setdefault((purpose(each), each.kind, axis, each.asynchronous), [0.0] * 5)
    for index, value in enumerate((each.bytes, 1, *seconds)):
      entry[index] += value * each.executions
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
  found: Sequence[CompiledCollective], wires: Sequence[float], seconds: Callable[[Work], float]
) -> list[float]:
  """Returns the seconds of one execution of every collective that no work hides.

    max(0, seconds on the wire - seconds of the work between start and done)

  for a collective by itself. Of several that are on their way at once no work counts twice: a place
  of the schedule hides first those that must end first, which leaves the least to wait for
  (Glover's rule). A collective that waits inside another's flight is not counted as work.
  """
  left = list(wires)
  flying = {}
  works = {}
  for index, each in enumerate(found):
    for scheduled in each.between:
      flying.setdefault(scheduled.place, []).append(index)
      works[scheduled.place] = scheduled.work
  last = [each.between[-1].place if each.between else 0 for each in found]
  for place in sorted(works):
    time = seconds(works[place])
    for index in sorted(flying[place], key=lambda index: last[index]):
      used = min(time, left[index])
      time = time - used
      left[index] = left[index] - used
  return left


def purpose(each: CompiledCollective) -> str:
  """Returns what a collective is for, by its place in the model."""
  *path, _ = each.source.split('/') if each.source else ['']
  inside = path[path.index('shard_map') - 1] if 'shard_map' in path[1:] else ''
  if inside == 'self_attention':
    return 'attention'
  if inside == 'cross_attention' or '/text/' in each.source:
    return 'text'
  if each.kind == 'reduce-scatter':
    return 'gradients'
  if inside and each.kind == 'all-gather':
    return 'weights'
  return 'other'


def axis_of(each: CompiledCollective, sizes: Mapping[str, int]) -> str:
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
      if (each.group, each.stride) == (size, after[axes[-1]]):
        return '+'.join(axes)
  # Parts of an axis: trading heads in groups, steps of a ring.
  within = [axis for axis in order if after[axis] <= each.stride < after[axis] * sizes[axis]]
  return within[-1] if within else ''


def audit_failures(found: Sequence[CompiledCollective], matrix: int) -> list[str]:
  """Lists the collectives that move more than they should, a sentence each.

  Weights are gathered in the compute type and gradients scattered: nothing as large as `matrix`,
  the bytes of a layer's smallest one over tensor, travels as an all-reduce, nor in float32.
  """
  said = []
  for each in found:
    if each.executions == 1 or each.largest < matrix:
      continue
    if each.kind == 'all-reduce':
      said.append(f'FAIL an all-reduce of {each.largest / 2**20:.0f} MiB: {each.source or "?"}')
    elif each.kind in ('all-gather', 'reduce-scatter') and each.dtype == 'f32':
      said.append(f'FAIL {each.kind} in float32, {each.largest / 2**20:.0f} MiB: {each.source}')
  return sorted(set(said))


def gpu_kernels(hlo: str, work: Workload, *, trained: bool = True) -> list[str]:
  """Says which kernels a program for GPUs has, and 'FAIL' where attention should be cuDNN's."""
  backward = hlo.count(f'{CUDNN}Backward"')
  forward = hlo.count(f'{CUDNN}"')
  products = hlo.count('custom_call_target="__cublas')
  said = [
    f'kernels: attention of cuDNN {forward} times forward, {backward} backward; {products} '
    'products of cuBLAS'
  ]
  head = (1, work.tokens, work.heads, work.dim // work.heads)
  able = work.itemsize == 2 and cudnn.supported(head, head, jnp.bfloat16)
  able &= work.tokens**2 * work.heads >= FEW_SCORES and work.attention in ('auto', 'flash')
  if able and not (forward and backward >= trained):
    said.append('FAIL attention is not a kernel of cuDNN: its scores go through memory')
  return said


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


def _seconds(each: CompiledCollective, wires: AxisNetwork | None) -> float:
  """Seconds of one execution."""
  if wires is None:
    return 0.0
  if each.kind == 'collective-permute':
    return wires.permute(each.bytes, 1)
  if each.kind == 'all-to-all':
    return exchange_seconds(wires, each.bytes, each.group, 1)
  return wires.gather(each.bytes, 1) * (2 if each.kind == 'all-reduce' else 1)
