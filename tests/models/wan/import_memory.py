"""Measures what an import holds in memory: `python -m tests.models.wan.import_memory 2 4 8`.

For each size in GB it writes a Wan of that many bytes, imports it in a process of its own and
prints that process's peak. Without weights the process has a peak too, so a line is fitted:
peak = a + b size. The files are removed.
"""

import json
import pathlib
import resource
import subprocess
import sys
import tempfile
import time

import jax.numpy as jnp
import numpy as np
from safetensors.numpy import save_file

GB = 10**9
MODULE = 'tests.models.wan.import_memory'
FIELDS = {'dim': 1536, 'heads': 12, 'mlp_dim': 8960, 'text_dim': 64}


def shapes_of(depth: int) -> list[dict[str, tuple[int, ...]]]:
  """Returns names and shapes of the tensors of diffusers: of all but the layers, and each layer."""
  d, f, e = FIELDS['dim'], FIELDS['mlp_dim'], FIELDS['text_dim']
  embedder = 'condition_embedder'
  maps = {
    f'{embedder}.text_embedder.linear_1': (d, e),
    f'{embedder}.text_embedder.linear_2': (d, d),
    f'{embedder}.time_embedder.linear_1': (d, 256),
    f'{embedder}.time_embedder.linear_2': (d, d),
    f'{embedder}.time_proj': (6 * d, d),
    'patch_embedding': (d, 16, 1, 2, 2),
    'proj_out': (64, d),
  }
  parts = [{'scale_shift_table': (1, 2, d), **_with_biases(maps)}]
  for layer in range(depth):
    block = f'blocks.{layer}'
    maps = {f'{block}.ffn.net.0.proj': (f, d), f'{block}.ffn.net.2': (d, f)}
    norms = {f'{block}.norm2.weight': (d,), f'{block}.norm2.bias': (d,)}
    for attention in ('attn1', 'attn2'):
      each = f'{block}.{attention}'
      maps |= {f'{each}.{name}': (d, d) for name in ('to_q', 'to_k', 'to_v', 'to_out.0')}
      norms |= {f'{each}.{name}.weight': (d,) for name in ('norm_q', 'norm_k')}
    parts.append({f'{block}.scale_shift_table': (1, 6, d), **norms, **_with_biases(maps)})
  return parts


def _with_biases(maps):
  weights = {f'{name}.weight': shape for name, shape in maps.items()}
  return weights | {f'{name}.bias': shape[:1] for name, shape in maps.items()}


def write(folder: pathlib.Path, size: int, dtype: str) -> tuple[int, int]:
  """Writes a model of about `size` bytes; returns its layers and bytes."""
  per_layer = sum(np.prod(shape) for shape in shapes_of(1)[1].values())
  per_layer *= jnp.dtype(dtype).itemsize
  depth = max(1, round(size / per_layer))
  where, total = {}, 0
  for part, shapes in enumerate(shapes_of(depth)):
    file = f'diffusion_pytorch_model-{part:05}.safetensors'
    tensors = {name: np.full(shape, part, jnp.dtype(dtype)) for name, shape in shapes.items()}
    save_file(tensors, folder / file)
    where |= dict.fromkeys(tensors, file)
    total += sum(tensor.nbytes for tensor in tensors.values())
  index = folder / 'diffusion_pytorch_model.safetensors.index.json'
  index.write_text(json.dumps({'weight_map': where}))
  return depth, total


def measure(size: int, dtype: str = 'bfloat16') -> dict[str, float]:
  """Imports a model of about `size` bytes in a new process.

  Returns `bytes` of its parameters, `peak` bytes of memory and `seconds`.
  """
  with tempfile.TemporaryDirectory() as scratch:
    depth, total = write(pathlib.Path(scratch), size, dtype)
    command = [sys.executable, '-m', MODULE, scratch, str(depth)]
    begin = time.perf_counter()
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    seconds = time.perf_counter() - begin
  return {'bytes': total, 'peak': float(done.stdout.split()[-1]), 'seconds': seconds}


def _import(folder: str, depth: str) -> None:
  from configs.wan import text_to_video
  from mgjax.apps.weights.import_export import import_weights

  config = text_to_video.get_config('debug')
  config.model.update(FIELDS, depth=int(depth))
  config.model.conditionings.text.features = FIELDS['text_dim']
  config.keep_type = True
  import_weights(config, folder, pathlib.Path(folder, 'run'))
  print(1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)


if __name__ == '__main__':
  if len(sys.argv) == 3 and pathlib.Path(sys.argv[1]).is_dir():
    _import(*sys.argv[1:])
    sys.exit()
  rows = [measure(int(float(size) * GB)) for size in sys.argv[1:]]
  for row in rows:
    size, peak, seconds = row.values()
    print(f'{size / GB:.2f} GB: peak {peak / GB:.2f} GB, {seconds:.0f} s')
  if len(rows) > 1:
    sizes, peaks, _ = zip(*(row.values() for row in rows), strict=True)
    slope, start = np.polyfit(sizes, peaks, 1)
    print(f'peak = {start / GB:.2f} GB + {slope:.3f} bytes')
