"""Counts what libtpu's schedules of attention kernels issue: ours, also by tiles, and JAX's splash.

python -m tests.oracles.tpu_schedules v5p:2x2x1 v6e:2x2 tpu7x:2x2x1

libtpu compiles for TPUs that are not there, and writes what every core will issue, bundle by
bundle, to a folder (`--xla_jf_dump_to`). A bundle takes a cycle or more. What it waits for is known
in part: a product of 16 rows of bfloat16 keeps a matrix unit for 16 cycles (units of 128 x 128,
v5p and v5e) or 8 (256 x 256, v6e and TPU7x), one of 8 rows of float32 for half of that; the peaks
follow from these numbers and 1.75 GHz (v5p, v6e). So cycles are, of the loop over blocks, the
larger of its bundles and of what its products need; memory and other waits come on top, and nothing
here ran on a TPU.
"""

import collections
import json
import os
import pathlib
import re
import subprocess
import sys
import tempfile

WHOSE = ('ours', 'splash')
LENGTH = 16384  # tokens of the one head that is compiled
TILE, READ = 512, 9  # tokens of a tile, and how many tiles are read where an index says which
COLUMNS = 'whose what chip blocks cores cycles bundles products product_cycles pushes powers vector'
UNITS = {'v5p': (4, 16), 'v5e': (4, 16), 'v6e': (2, 8), 'tpu7x': (2, 8)}  # and cycles of 16 rows

_BUNDLE = re.compile(r'\s*0x[0-9a-f]+\s*([A-Z ]*?)\s*:\s*([> ]*)\{(.*)\}')
_OPCODE = re.compile(r'= *([a-z][\w.]*)|^\s*\d+ *[:=]? *([a-z][\w.]*)')
_NOT_VECTOR = ('vld', 'vst', 'vpop', 'vsync', 'vmatmul', 'vmatp', 'vxpose', 'vrot', 'vperm')
_POWERS = ('vpow2', 'vexp2', 'vlog2', 'vrcp')


def count(schedule: str, chip: str) -> dict[str, int]:
  """Counts a kernel's schedule, in the parts of it that multiply matrices.

  Args:
    schedule: the text of a file `*final_bundles.txt`.
    chip: as in `UNITS`.

  Returns:
    bundles, products (of 8 or 16 rows), the cycles in which the matrix units can make these, pushes
    of weights, powers and logarithms, vector operations beside, and cores that take part.
  """
  sums = collections.Counter()
  units, cycles = UNITS[chip]
  for bundles, opcodes in _parts(schedule):
    products = {op: n for op, n in opcodes.items() if op.startswith('vmatmul')}
    if not products:
      continue
    rows = sum(n * (0.5 if '.f32' in op or '.lmr' in op else 1) for op, n in products.items())
    sums['bundles'] += bundles
    sums['products'] += sum(products.values())
    sums['product_cycles'] += int(rows * cycles / units)
    sums['cycles'] += max(bundles, int(rows * cycles / units))
    for opcode, n in opcodes.items():
      sums['pushes'] += n * opcode.startswith('vmatpush')
      sums['powers'] += n * opcode.startswith(_POWERS)
      vector = opcode.startswith('v') and not opcode.startswith((*_NOT_VECTOR, *_POWERS))
      sums['vector'] += n * (vector and '.xlane' not in opcode)
  # Two cores meet before they share a grid; where only one works, the other leaves at once.
  return {**sums, 'cores': 2 if 'BarrierMegacore' in schedule else 1}


def _parts(schedule: str):
  """Yields bundles and opcodes of what stands between branches, inside the loop over blocks."""
  bundles, opcodes = 0, collections.Counter()
  for line in schedule.splitlines():
    match = _BUNDLE.match(line)
    if not match or '>' not in match[2]:
      continue
    if match[1].strip():
      yield bundles, opcodes
      bundles, opcodes = 0, collections.Counter()
    bundles += 1
    found = [_OPCODE.search(each) for each in match[3].split(' ;; ')]
    names = [each[1] or each[2] for each in found if each]
    opcodes.update(names)
    if 'sbr.rel' in names:
      yield bundles, opcodes
      bundles, opcodes = 0, collections.Counter()
  yield bundles, opcodes


def schedules(topology: str, length: int = LENGTH) -> list[dict]:
  """Compiles the kernels in a process of its own, whose compiler writes schedules; counts them."""
  with tempfile.TemporaryDirectory() as folder:
    settings = {
      'JAX_PLATFORMS': 'cpu',
      'LIBTPU_INIT_ARGS': f'--xla_jf_dump_to={folder}',
      'JAX_ENABLE_COMPILATION_CACHE': 'false',
      'ALLOW_MULTIPLE_LIBTPU_LOAD': '1',
      'TPU_SKIP_MDS_QUERY': '1',
      'TPU_ACCELERATOR_TYPE': 'v5p-8',
      'TPU_WORKER_HOSTNAMES': 'localhost',
    }
    environment = {key: value for key, value in os.environ.items() if key != 'XLA_FLAGS'} | settings
    command = [sys.executable, '-m', __spec__.name if __name__ == '__main__' else __name__]
    compiled = subprocess.run(
      [*command, '--compile', topology, str(length)],
      env=environment,
      stdout=subprocess.PIPE,
      stderr=subprocess.DEVNULL,
      text=True,
      check=True,
    )
    blocks = json.loads(compiled.stdout.splitlines()[-1])
    return [_counted(path, topology, blocks) for path in _files(folder)]


def _files(folder: str) -> list[pathlib.Path]:
  found = pathlib.Path(folder).glob('*-final_bundles.txt')
  named = [path for path in found if 'schedule-analysis' not in path.name]
  return sorted((path for path in named if _kernel(path)), key=lambda path: _kernel(path))


def _kernel(path: pathlib.Path) -> tuple[str, str] | None:
  kernels = {
    'attention_forward_fixed_tiles': ('tiles', 'forward'),
    'attention_forward_running_tiles': ('tiles', 'forward, running maximum'),
    'attention_backward_tiles': ('tiles', 'backward'),
    'attention_forward_fixed': ('ours', 'forward'),
    'attention_forward_running': ('ours', 'forward, running maximum'),
    'attention_backward': ('ours', 'backward'),
    'splash_mha_fwd': ('splash', 'forward'),
    'splash_mha_dkv': ('splash', 'backward'),
  }
  return next((which for name, which in kernels.items() if name in path.name), None)


def _counted(path: pathlib.Path, topology: str, blocks: dict) -> dict:
  whose, what = _kernel(path)
  chip = topology.partition(':')[0]
  queries, keys = blocks[f'{whose} {what.partition(",")[0]}']
  # Of both bodies of a kernel with a mask one runs; without a mask there is one.
  found = count(path.read_text(), chip)
  scale = 2**20 / (queries * keys)
  counts = {name: n if name == 'cores' else round(n * scale) for name, n in found.items()}
  return {'whose': whose, 'what': what, 'chip': chip, 'blocks': f'{queries} x {keys}', **counts}


def _compile(topology: str, length: int) -> None:
  import jax
  import jax.numpy as jnp
  from jax.experimental import topologies
  from jax.sharding import SingleDeviceSharding

  from mgjax.experimental.tpu_attention import backward, forward
  from mgjax.nn.kernels import splash
  from mgjax.nn.kernels import tpu_blocks as blocks

  devices = topologies.get_topology_desc(platform='tpu', topology_name=topology).devices
  place = SingleDeviceSharding(devices[0])
  q = jax.ShapeDtypeStruct((1, length, 1, 128), jnp.bfloat16, sharding=place)
  rows = jax.ShapeDtypeStruct((1, 1, length), jnp.float32, sharding=place)
  for ahead, back in ((forward.forward, backward.backward), (splash.forward, splash.backward)):
    jax.jit(lambda q, k, v, run=ahead: run(q, k, v, None)).lower(q, q, q).compile()
    jax.jit(lambda q, k, v, delta, lse, do, run=back: run((q, k, v, None, delta, lse), do)).lower(
      q, q, q, rows, rows, q
    ).compile()
  ours, tiles = (
    (blocks.forward_blocks(*sizes, tiles=read), blocks.backward_blocks(*sizes, 1, read))
    for sizes, read in (((length, length, 128, 2), each) for each in (None, (length // TILE, READ)))
  )
  index = jax.ShapeDtypeStruct((1, 1, length // TILE, READ), jnp.int32, sharding=place)
  ahead = lambda q, k, v, index: forward.forward(q, k, v, None, index=index)  # noqa: E731
  jax.jit(ahead).lower(q, q, q, index).compile()
  jax.jit(lambda index, do, *saved: backward.backward(saved, do, index=index)).lower(
    index, q, q, q, q, None, rows, rows
  ).compile()
  theirs = splash._blocks(q, q, splash.FORWARD_TILE), splash._blocks(q, q, splash.BACKWARD_TILE)
  pairs = zip((*WHOSE, 'tiles'), (ours, theirs, tiles), strict=True)
  print(
    json.dumps(
      {
        f'{whose} {what}': (each.queries, each.keys)
        for whose, both in pairs
        for what, each in zip(('forward', 'backward'), both, strict=True)
      }
    )
  )


def main(arguments: list[str]) -> None:
  """Prints a table, or compiles for the process that prints it."""
  if arguments[0] == '--compile':
    _compile(arguments[1], int(arguments[2]))
    return
  print(COLUMNS)
  for topology in arguments:
    for each in schedules(topology):
      print(' | '.join(str(each[name]) for name in COLUMNS.split()), flush=True)


if __name__ == '__main__':
  main(sys.argv[1:])
