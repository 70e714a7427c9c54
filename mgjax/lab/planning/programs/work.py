"""Counts the work of a compiled program's instructions: operations of products, bytes of the rest.

What cannot be counted surely is counted as less, since it is there to hide communication. Arrays
that lie on the chip itself move no bytes. Slices of an array count, and not the array. Of several
branches the one with the least of everything counts. Whatever starts and ends apart, such as copies
and collectives, is no work.
"""

import dataclasses
import functools
import math
import re
from typing import Literal

import numpy as np

from mgjax.lab.planning.efficiency import BACKWARD, FORWARD, Rates
from mgjax.lab.planning.programs.hlo import Instruction, Place, Program, arrays_of
from mgjax.parallel.chips import Chip

PRODUCTS = ('dot', 'convolution')
CALLS = ('while', 'conditional', 'call')
BETWEEN = 'async_collective_fusion'  # its arrays are those of a gather on its way
_NOTHING = (
  'parameter',
  'constant',
  'tuple',
  'get-tuple-element',
  'bitcast',
  'after-all',
  'iota',
  'opt-barrier',
  'partition-id',
  'replica-id',
  'async-update',
  'domain',
  'all-gather',
  'all-reduce',
  'all-to-all',
  'reduce-scatter',
  'collective-permute',
)
_SLICES = ('dynamic-slice', 'slice', 'gather')
# What kernels of attention are called, here and in JAX.
_BACKWARDPALLAS = re.compile(r'dkv|dq|bwd|backward')
_FORWARDPALLAS = re.compile(r'fwd|forward')
PALLAS = 'custom_call_target="tpu_custom_call"'  # XLA's name of such a kernel on TPUs
CUDNN = 'custom_call_target="__cudnn$fmhaSoftmax'  # XLA's name of cuDNN's attention on GPUs


@dataclasses.dataclass(frozen=True)
class Work:
  """What instructions do on one chip: operations of products and kernels, bytes of all else."""

  linear: float = 0.0
  forward: float = 0.0
  backward: float = 0.0
  bytes: float = 0.0

  def __add__(self, other: 'Work') -> 'Work':
    return Work(*(a + b for a, b in zip(self.parts, other.parts, strict=True)))

  def __mul__(self, times: int) -> 'Work':
    return Work(*(part * times for part in self.parts))

  @property
  def parts(self) -> tuple[float, ...]:
    """The four numbers."""
    return self.linear, self.forward, self.backward, self.bytes

  def seconds(self, rates: Rates, chip: Chip) -> float:
    """Returns the time of it: operations at their shares of the peak, bytes at the bandwidth."""
    at_peak = self.linear / rates.linear + self.forward / rates.forward
    at_peak += self.backward / rates.backward
    return at_peak / chip.flops + self.bytes / chip.memory_bandwidth


class WorkCounter:
  """Counts the work of any instruction of a program."""

  def __init__(self, program: Program):
    self._program = program
    self._shapes = {
      name: {step.name: step.arrays for step in steps}
      for name, steps in program.computations.items()
    }
    self.computation = functools.cache(self._computation)

  def instruction(self, name: str, step: Instruction) -> Work:
    """Returns the work of an instruction of the computation `name`, with all that it calls."""
    if step.opcode in PRODUCTS:
      return Work(linear=self._product(name, step))
    if step.opcode == 'custom-call':
      return self._kernel(step)
    if step.opcode == 'fusion':
      return self._fusion(name, step)
    if step.opcode in CALLS:
      return self._called(step)
    if step.opcode in _NOTHING or step.opcode.endswith(('-start', '-done')):
      return Work()
    bytes_read = sum(_large(self._arrays(name, operand)) for operand in step.operands)
    if step.opcode in (*_SLICES, 'dynamic-update-slice'):
      bytes_read = 0
    bytes_written = _large(step.arrays)
    if step.opcode == 'dynamic-update-slice':
      bytes_written = _large(self._arrays(name, step.operands[1])) if len(step.operands) > 1 else 0
    return Work(bytes=bytes_read + bytes_written)

  def _computation(self, name: str) -> Work:
    """Sums the work of a computation, but for what collectives of its own may hide behind."""
    steps = self._program.computations.get(name, ())
    total = Work()
    flying = 0
    for step in steps:
      flying = max(0, flying + is_end(step, 'start') - is_end(step, 'done'))
      if not flying:
        total += self.instruction(name, step)
    return total

  def _called(self, step: Instruction) -> Work:
    if step.opcode == 'conditional':
      branches = [self.computation(branch).parts for branch in step.called]
      return Work(*map(min, zip(*branches, strict=True))) if branches else Work()
    bodies = (body for body in step.called if f'condition=%{body}' not in step.rest)
    return sum((self.computation(body) for body in bodies), Work()) * self._program.turns(step)

  def _fusion(self, name: str, step: Instruction) -> Work:
    """Returns a fusion's products or, if it has none, the bytes that it reads and writes."""
    inside = [self._inside(computation) for computation in step.called]
    products = dataclasses.replace(sum(inside, Work()), bytes=0.0)
    if any(products.parts) or any(computation.startswith(BETWEEN) for computation in step.called):
      return products
    total = 0
    for called in step.called:
      wrote = sum(array.bytes for array in self._written(called))
      total += min(wrote, _large(step.arrays))
      for index, operand in enumerate(step.operands):
        there = _large(self._arrays(name, operand))
        total += min(there, self._read(called, index)) if there else 0
    return Work(bytes=total)

  def _inside(self, name: str) -> Work:
    steps = self._program.computations.get(name, ())
    works = (
      self.instruction(name, step)
      for step in steps
      if step.opcode in (*PRODUCTS, 'custom-call', 'fusion')
    )
    return sum(works, Work())

  def _read(self, name: str, index: int) -> int:
    """Returns the bytes that a fused computation reads of its operand `index`."""
    for step in self._program.computations.get(name, ()):
      if step.opcode == 'parameter' and step.rest.startswith(f'{index})'):
        return self._used(name, step.name, sum(array.bytes for array in step.arrays))
    return 0

  def _used(self, name: str, operand: str, size: int) -> int:
    """Returns the bytes of an array that a computation uses: of slices, only their bytes."""
    total = 0
    for step in self._program.computations[name]:
      if operand not in step.operands:
        continue
      if step.opcode in _SLICES:
        total += sum(array.bytes for array in step.arrays)
      elif step.opcode == 'bitcast':
        total += self._used(name, step.name, size)
      elif step.opcode == 'fusion' and step.called:
        total += self._read(step.called[0], step.operands.index(operand))
      elif step.opcode != 'dynamic-update-slice' or step.operands[0] != operand:
        return size
    return min(total, size)

  def _written(self, name: str) -> list[Place]:
    """Returns what a fused computation writes; for an array that it updates, only the slice."""
    steps = {step.name: step for step in self._program.computations.get(name, ())}
    pending = [step for step in steps.values() if step.root]
    written = []
    while pending:
      step = pending.pop()
      if step.opcode in ('tuple', 'bitcast'):
        pending += [steps[operand] for operand in step.operands if operand in steps]
      elif step.opcode == 'dynamic-update-slice' and len(step.operands) > 1:
        written += self._arrays(name, step.operands[1])
      else:
        written += step.arrays
    return written

  def _arrays(self, name: str, operand: str) -> tuple[Place, ...]:
    return self._shapes[name].get(operand, ())

  def _product(self, name: str, step: Instruction) -> float:
    """Two operations for every pair of numbers that meet, padding and gaps left out."""
    sides = [self._arrays(name, operand) for operand in step.operands[:2]]
    if len(sides) < 2 or not all(sides):
      return 0.0
    left, right = (side[0].sizes for side in sides)
    out = step.arrays[0].sizes
    if step.opcode == 'dot':
      match = re.search(r'lhs_contracting_dims=\{([\d,]*)\}', step.rest)
      axes = [int(axis) for axis in match[1].split(',') if axis] if match else []
      return 2.0 * math.prod(out) * math.prod(left[axis] for axis in axes)
    return _convolution(step.rest, left, right, out)

  def _kernel(self, step: Instruction) -> Work:
    """An attention kernel by its name, of queries (.. n k) and keys (.. m k); cuDNN's (b n g k)."""
    match = re.search(r'operand_layout_constraints=\{(.*?\})\}', step.rest)
    if not match or not (PALLAS in step.rest or CUDNN in step.rest):
      return Work()
    floats = [p for p in arrays_of(match[1]) if p.dtype[0] in 'bf' and len(p.sizes) > 2]
    if len(floats) < 3:
      return Work()
    queries, keys = floats[0].sizes, floats[1].sizes
    product = 2.0 * math.prod(queries) * keys[-3 if CUDNN in step.rest else -2]
    if _BACKWARDPALLAS.search(step.name):
      return Work(backward=BACKWARD * product)
    return Work(forward=FORWARD * product) if _FORWARDPALLAS.search(step.name) else Work()


def is_end(step: Instruction, which: Literal['start', 'done']) -> bool:
  """Whether an instruction starts a collective that ends later, or waits for the end of one."""
  return step.name.startswith(f'async-collective-{which}') or (
    step.opcode.endswith(f'-{which}') and not step.opcode.startswith(('copy', 'slice'))
  )


def _large(arrays: tuple[Place, ...]) -> int:
  return sum(array.bytes for array in arrays if array.large)


def _convolution(rest: str, left: tuple[int, ...], right: tuple[int, ...], out: tuple[int, ...]):
  """Products of matrices are convolutions here, batches of them with gaps in the left side."""
  match = re.search(r'dim_labels=(\w+)_(\w+)->(\w+)', rest)
  if not match or (len(match[1]), len(match[2]), len(match[3])) != (
    len(left),
    len(right),
    len(out),
  ):
    return 0.0
  written = re.search(r'window=\{([^}]*)\}', rest)
  window = dict(re.findall(r'(\w+)=([\d_x\-]+)', written[1] if written else ''))
  spatial = sorted(label for label in match[1] if label.isdigit())

  def numbers(key: str, default: str) -> list[str]:
    return window[key].split('x') if key in window else [default] * len(spatial)

  pairs = 1.0
  for index, label in enumerate(spatial):
    low, _, _ = numbers('pad', '0_0')[index].partition('_')
    pairs *= _taps(
      size=left[match[1].index(label)],
      out=out[match[3].index(label)],
      window=right[match[2].index(label)],
      stride=int(numbers('stride', '1')[index]),
      low=int(low),
      gaps=(int(numbers('lhs_dilate', '1')[index]), int(numbers('rhs_dilate', '1')[index])),
    )
  rows, features = out[match[3].index('b')], out[match[3].index('f')]
  return 2.0 * rows * features * right[match[2].index('i')] * pairs


@functools.cache
def _taps(size: int, out: int, window: int, stride: int, low: int, gaps: tuple[int, int]) -> int:
  """Counts the places of a window, at all places of the output, that lie on the input's numbers."""
  if window == 1 and stride == gaps[0] == 1 and low == 0:
    return out
  starts = np.arange(out)[:, None] * stride - low
  places = starts + np.arange(window)[None] * gaps[1]
  inside = (places >= 0) & (places <= (size - 1) * gaps[0]) & (places % gaps[0] == 0)
  return int(inside.sum())
