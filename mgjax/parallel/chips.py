"""Peak rates and memory of chips, and named topologies of them."""

import dataclasses
import itertools
import math
import re
from typing import TypedDict

import jax

from mgjax.core.errors import ConfigError

GIB = 2**30


@dataclasses.dataclass(frozen=True)
class Protocol:
  """How NCCL sends the messages of a collective between GPUs.

  Attributes:
    start: seconds before the first step.
    inside: seconds of a step to the next GPU over NVLink, whatever it sends.
    across: the same over the network.
    share: of the links' rate that it reaches.
  """

  start: float
  inside: float
  across: float
  share: float


# Latencies are those that NCCL itself chooses by (src/graph/tuning.cc, version 2.19, Hopper): a
# ring's protocols Simple and LL128, which has less to wait for and 120 of 128 bytes, fewer where a
# node has one GPU. There PAT may be taken as well, since 2.23, whose steps are a logarithm of the
# nodes and a part that still grows with them; 3.5 is NCCL's own correction.
RINGS = (Protocol(8.4e-6, 3.4e-6, 14.0e-6, 1.0), Protocol(14.0e-6, 1.9e-6, 4.0e-6, 0.92))
ONE_OF_A_NODE = (RINGS[0], Protocol(14.0e-6, 1.9e-6, 4.0e-6, 0.7), Protocol(8e-6, 0, 2.8e-6, 0.75))
PAT_STEP = 14.0e-6 / 3.5


@dataclasses.dataclass(frozen=True)
class Chip:
  """One kind of device, as the program sees it: a TPU7x chip is two devices."""

  name: str
  flops: float  # peak of bfloat16 matrix products, operations a second
  memory: float
  memory_bandwidth: float  # bytes a second
  # Bytes a second one way, of one link of the torus; of a GPU, of its NVLink as a whole.
  link: float
  rank: int = 0  # axes of the torus; 0 for GPUs
  wraps: int = 1  # the lengths of a torus axis, in multiples, whose ends are joined
  cores: int = 1  # devices a chip, which share its links and talk over one of their own
  hop: float = 0.0  # seconds of a message to the neighbour on the torus, whatever it has
  network: float = 0.0  # bytes a second one way between nodes of a pod, the rails, a GPU
  node: int = 8  # GPUs that NVLink joins
  pod: int = 0  # GPUs that have that rate to each other
  spine: float = 1.0  # share of that rate which all of a pod have to other pods
  # Whether its compiler gathers weights while other work runs, without being asked: seen in
  # programs compiled for v5e and not in those for v5p or v6e, assumed of GPUs.
  gathers_ahead: bool = False
  # Whether heads are traded while other work runs, as `parallel/compiler.py` asks.
  exchanges_ahead: bool = False


class _Network(TypedDict):
  network: float
  pod: int
  spine: float


class _Card(TypedDict):
  link: float
  network: float
  pod: int
  gathers_ahead: bool


# A hop of 1 us is what the authors of 'How to Scale Your Model' count with (jax-ml/scaling-book,
# sharding.md; of three hops they measured 8 us). Pods of 3,072 GPUs and 1:7 between them are the
# network of Llama 3 (arXiv 2407.21783), of the machines and the maker of Movie Gen's, whose own is
# not in public sources.
HOP = 1e-6
RAILS: _Network = {'network': 50e9, 'pod': 3072, 'spine': 1 / 7}
# Peaks, memory and bandwidths are those of the vendors' pages. Google's links carry 100 GB/s (v5p,
# v6e, TPU7x) or 50 GB/s (v5e) one way; nine tenths of that is assumed to be had. NVLink is 450 GB/s
# one way (A100: 300, B200 and GB200: 900), the network of Movie Gen's own machines 400 Gb/s a GPU
# (of A100s 200), both taken as they are. GB200 is one GPU of an NVL72 rack, whose network is taken
# to be the same. Cards talk over PCIe (x16: 32 GB/s one way, of the fifth generation 64), and to
# other machines at 25 Gb/s a card, which is assumed. Peaks are dense, with float32 sums.
OLDER_RAILS: _Network = {**RAILS, 'network': 25e9}
CARDS: _Card = {'link': 32e9, 'network': 25e9 / 8, 'pod': 3072, 'gathers_ahead': True}
FASTER_CARDS: _Card = {**CARDS, 'link': 64e9}
CHIPS = {
  chip.name: chip
  for chip in (
    Chip('v5p', 459e12, 95 * GIB, 2.765e12, 90e9, rank=3, wraps=4, hop=HOP, exchanges_ahead=True),
    Chip('v5e', 197e12, 16 * GIB, 0.819e12, 45e9, rank=2, wraps=16, hop=HOP, gathers_ahead=True),
    Chip('v6e', 918e12, 32 * GIB, 1.64e12, 90e9, rank=2, wraps=16, hop=HOP, exchanges_ahead=True),
    # Half a chip of 2,307 TFLOP/s, 192 GiB, 7.37 TB/s; two devices share the chip's links.
    Chip(
      'tpu7x',
      1153.5e12,
      96 * GIB,
      3.69e12,
      45e9,
      rank=3,
      wraps=4,
      cores=2,
      hop=HOP,
      exchanges_ahead=True,
    ),
    Chip('a100', 312e12, 80e9, 2.039e12, 300e9, **OLDER_RAILS, gathers_ahead=True),
    Chip('h100', 989e12, 80e9, 3.35e12, 450e9, **RAILS, gathers_ahead=True),
    Chip('h200', 989e12, 141e9, 4.8e12, 450e9, **RAILS, gathers_ahead=True),
    Chip('b200', 2250e12, 180e9, 7.7e12, 900e9, **RAILS, gathers_ahead=True),
    Chip('gb200', 2500e12, 186e9, 8e12, 900e9, **RAILS, node=72, gathers_ahead=True),
    Chip('a100-40gb', 312e12, 40e9, 1.555e12, 300e9, **OLDER_RAILS, gathers_ahead=True),
    Chip('h100-pcie', 756e12, 80e9, 2.0e12, **FASTER_CARDS),
    Chip('l4', 121e12, 24e9, 0.3e12, **CARDS),
    Chip('l40s', 362e12, 48e9, 0.864e12, **CARDS),
    Chip('rtx3090', 71e12, 24e9, 0.936e12, **CARDS),
    Chip('rtx4090', 165e12, 24e9, 1.008e12, **CARDS),
    Chip('rtx5090', 209e12, 32e9, 1.792e12, **FASTER_CARDS),
  )
}
# What devices call themselves. Others of a family have other peaks: names must be whole.
KINDS = {
  'NVIDIA A100-SXM4-80GB': 'a100',
  'NVIDIA H100 80GB HBM3': 'h100',
  'NVIDIA H200': 'h200',
  'NVIDIA B200': 'b200',
  'NVIDIA GB200': 'gb200',
  'NVIDIA A100-SXM4-40GB': 'a100-40gb',
  'NVIDIA H100 PCIe': 'h100-pcie',
  'NVIDIA L4': 'l4',
  'NVIDIA L40S': 'l40s',
  'NVIDIA GeForce RTX 3090': 'rtx3090',
  'NVIDIA GeForce RTX 4090': 'rtx4090',
  'NVIDIA GeForce RTX 5090': 'rtx5090',
  'TPU v5': 'v5p',
  'TPU v5p': 'v5p',
  'TPU v5 lite': 'v5e',
  'TPU v5e': 'v5e',
  'TPU v6 lite': 'v6e',
  'TPU v6e': 'v6e',
  'TPU7x': 'tpu7x',
}

# Between the two devices of a TPU7x chip: six links' worth, from memory of the vendor's page.
BETWEEN_CORES = 6 * 90e9


def find_chip(kind: str) -> Chip | None:
  """Returns the chip of a JAX `device_kind`, or None if its peak rate is not known."""
  return CHIPS[KINDS[kind]] if kind in KINDS else None


def peak_bytes() -> int | None:
  """Returns the peak bytes in use on a device of this process, or None if it is not reported."""
  stats = [device.memory_stats() or {} for device in jax.local_devices()]
  return max(device_stats.get('peak_bytes_in_use', 0) for device_stats in stats) or None


@dataclasses.dataclass(frozen=True)
class Topology:
  """Many chips of a kind.

  `shape` is devices along each axis of the torus, with one for the cores of a chip; of GPUs, those
  of a node and the nodes.
  """

  name: str
  chip: Chip
  shape: tuple[int, ...]

  @property
  def devices(self) -> int:
    """The number of devices that the program sees."""
    return math.prod(self.shape)

  @property
  def torus(self) -> tuple[int, ...]:
    """The shape of the torus, () for GPUs."""
    return self.shape if self.chip.rank else ()


# Names of chips beside their own, and what may stand around them without saying anything.
_ALIASES = {
  'v5litepod': 'v5e',
  'v5lite': 'v5e',
  'v5-lite': 'v5e',
  'v6-lite': 'v6e',
  'trillium': 'v6e',
  'v7x': 'tpu7x',
  'ironwood': 'tpu7x',
  '3090': 'rtx3090',
  '4090': 'rtx4090',
  '5090': 'rtx5090',
}
_NAMES = '|'.join(sorted((*CHIPS, *_ALIASES), key=len, reverse=True))
_NUMBERS = r'\d+(?:x\d+)*'
_KIND = re.compile(rf'(?P<name>{_NAMES})(?P<words>(-(sxm\d?|hbm\w*|nvlink|nvl\d+|\d+gb|[dh]gx))*)')
_TYPED = re.compile(
  rf'((?P<before>{_NUMBERS})[x-]*)?(?P<dgx>[dh]gx-)?(?P<kind>{_KIND.pattern})'
  rf'([x-]+(?P<after>{_NUMBERS}))?'
)
_SILENT = re.compile(r'\b(nvidia|geforce|google|cloud|tpu|gpus?|chips?|slice)\b-?|tpu(?=v\d)')
_BY_CORES = ('v5p', 'tpu7x')  # whose slices Google counts in TensorCores, two a chip: v5p-64
_MOST = {2: 256, 3: 9216}  # chips of a slice, by the axes of its torus


def parse_topology(name: str) -> Topology:
  """Reads 'v5p:8x8x8' (chips along the axes of the torus) or 'h100:8x64' (64 nodes of 8 GPUs).

  Without a colon, in any case: 'v5p-64' and 'v5e-8' as Google names slices, '8xH100', 'rtx4090',
  '2x8xA100-80GB' (2 nodes of 8 GPUs), and what else `_TYPED` takes. The topology's own name is of
  the form with a colon. Raises ConfigError for an unknown chip, or for sizes that it is not sold
  in.
  """
  text = re.sub(r'\s*:\s*', ':', name.strip().lower())
  text = re.sub(r'[*\N{MULTIPLICATION SIGN}]', 'x', re.sub(r'[\s_]+', '-', text))
  text = text.replace('-x-', 'x')
  text = _SILENT.sub('', text).replace('rtx-', 'rtx').strip('-')
  kind, colon, sizes = text.partition(':')
  match = (_KIND if colon else _TYPED).fullmatch(kind)
  if match is None:
    raise ConfigError(
      f'topology {name!r}: there is no chip {kind!r}; take one of {", ".join(CHIPS)}, as in '
      'v5p:8x8x8, h100:8x64, v5p-64, 8xH100 or 2x8xA100'
    )
  base = _ALIASES.get(match['name'], match['name'])
  family = [
    member for member in CHIPS.values() if member.name == base or member.name.startswith(f'{base}-')
  ]
  # Memory in the name has to match within 10%.
  stated = [int(digits) * 1e9 for digits in re.findall(r'(\d+)gb', match['words'])]
  chip = next((x for x in family if all(0.9 < size / x.memory < 1.1 for size in stated)), None)
  if chip is None:
    raise ConfigError(
      f'topology {name!r}: {base} has {family[0].memory / 1e9:.0f} GB and not '
      f'{stated[0] / 1e9:.0f}, '
      f'which is another chip; take one of {", ".join(CHIPS)}'
    )
  if colon:
    shape = tuple(map(int, sizes.split('x'))) if re.fullmatch(_NUMBERS, sizes) else ()
    if not shape or 0 in shape:
      raise ConfigError(
        f'topology {name!r}: expected sizes after the colon, as in {_example(chip)}'
      )
  else:
    shape = _typed_shape(name, chip, match)
  if not chip.rank:
    shape = _nodes(name, chip, shape)
    return Topology(_written(chip, shape[: 1 + (shape[1] > 1)]), chip, shape)
  if len(shape) != chip.rank:
    raise ConfigError(
      f'topology {name!r}: the torus of {chip.name} has {chip.rank} axes, as in {_example(chip)}'
    )
  cores = (chip.cores,) if chip.cores > 1 else ()
  return Topology(_written(chip, shape), chip, shape + cores)


def _written(chip: Chip, shape: tuple[int, ...]) -> str:
  return f'{chip.name}:{"x".join(map(str, shape))}'


def _typed_shape(name: str, chip: Chip, match: re.Match[str]) -> tuple[int, ...]:
  """Returns the sizes of a name without a colon, in the order of those behind a colon."""
  before = [int(length) for length in match['before'].split('x')] if match['before'] else []
  after = [int(length) for length in match['after'].split('x')] if match['after'] else []
  counts = [*before, *after]
  if 0 in counts:
    raise ConfigError(f'topology {name!r}: expected one chip or more, as in {_example(chip)}')
  if chip.rank and before and after:
    raise ConfigError(
      f'topology {name!r}: expected one slice, as in {_example(chip)}; several are not planned'
    )
  if chip.rank:
    chips = counts[0] if len(counts) == 1 else 0
    by_cores = after and chip.name in _BY_CORES
    return _slice(name, chip, chips / 2 if by_cores else chips) if chips else tuple(counts)
  node = re.search(r'nvl(\d+)', match['words'])
  if node or match['dgx'] or 'gx' in match['words']:
    counts.append(int(node[1]) if node else chip.node)
  if len(counts) == 1 and counts[0] > chip.node and counts[0] % chip.node == 0:
    counts = [chip.node, counts[0] // chip.node]
  counts.sort(key=lambda count: count != chip.node)  # nodes x GPUs, or GPUs x nodes
  return tuple(counts or [1])


def _slice(name: str, chip: Chip, chips: float) -> tuple[int, ...]:
  """Returns the most cubic torus of `chips` chips; below 64 its axes are powers of two."""
  small = chip.rank == 2 or chips < 64
  axes = (1, 2, 4, 8, 16)[: 5 if chip.rank == 2 else 3] if small else range(4, 65, 4)
  shapes = [
    shape
    for shape in itertools.combinations_with_replacement(axes, chip.rank)
    if math.prod(shape) == chips <= _MOST[chip.rank]
  ]
  if not shapes:
    raise ConfigError(
      f'topology {name!r}: there is no slice of {chips:g} {chip.name}; give its torus, as in '
      f'{_example(chip)}'
    )
  return tuple(sorted(min(shapes, key=max), key=lambda axis: (axis == 1, axis)))


def _nodes(name: str, chip: Chip, shape: tuple[int, ...]) -> tuple[int, ...]:
  """Returns the GPUs of a node and the number of nodes; several nodes must be complete."""
  node = chip.node
  gpus, nodes = (*shape, 1)[:2]
  if len(shape) > 2 or gpus > node or (nodes > 1 and gpus != node):
    raise ConfigError(
      f'topology {name!r}: expected up to {node} GPUs of one node, or {node} x the number of '
      f'nodes, as in {chip.name}:{node}x{max(math.prod(shape) // node, 2)}'
    )
  return (gpus, nodes)


def _example(chip: Chip) -> str:
  return {0: f'{chip.name}:{chip.node}x64', 2: f'{chip.name}:16x16'}.get(
    chip.rank, f'{chip.name}:8x8x8'
  )
