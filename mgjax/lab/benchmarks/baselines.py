"""Baselines: other implementations of what is timed, JAX's own attention or a Python file.

A file, such as `tests/oracles/torch_attention.py`, has WHAT, the names of what it can run, and
`make_programs(task) -> {variant: {program: run}}`. A program goes by the name that ours has
(`programs.py`), `run()` returns when it is done, and `task` is what `make_task` returns.
Against autoencoders, codecs and encoders `task` is what `make_forward_task` returns, and `run()`
gives its result, an array, to be compared with ours before anything is timed.
A file has DIFFERS where its work is another: words for its row, and nothing is compared.
"""

import dataclasses
import importlib.util
import os
import pathlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import numpy as np

from mgjax.core.configuration.keys import JSON, Fields
from mgjax.core.errors import ConfigError
from mgjax.core.precision import compute_type
from mgjax.core.settings import annotations
from mgjax.core.typing import Array, Tree
from mgjax.lab.benchmarks.programs import BOTH, FORWARD
from mgjax.lab.benchmarks.timing import Timed, compile_program, draw, repeated
from mgjax.lab.planning.forward import Forward
from mgjax.models.backbone.transformer import Transformer
from mgjax.nn.patch import grid

JAX = 'jax.nn'
FIELDS = ('dim', 'depth', 'heads', 'mlp_dim', 'positions', 'patch', 'epsilon', 'remat')

Programs = dict[str, Timed]


@dataclasses.dataclass(frozen=True)
class Baseline:
  """Another implementation: `make_programs` maps a task to variant -> program -> run.

  `differs` says how what it does is not what ours does; '' if it is the same.
  """

  name: str
  make_programs: Callable[[Fields], Mapping[str, Mapping[str, Timed]]]
  differs: str = ''


def find_baselines(names: Sequence[str], what: str, devices: int) -> list[Baseline]:
  """Finds baselines by name, 'jax.nn' or paths of Python files, before anything slow starts.

  Raises ConfigError if a baseline does not exist, or cannot run `what` on this many devices.
  """
  if names and devices > 1:
    raise ConfigError(
      f'a baseline runs on one device, and this mesh has {devices}; leave --baseline away, or show '
      'this process one device, as with CUDA_VISIBLE_DEVICES=0'
    )
  loaded = []
  for name in names:
    supported, baseline = (
      (('attention',), Baseline(JAX, _jax_programs)) if name == JAX else _load(name)
    )
    if what not in supported:
      raise ConfigError(
        f'--baseline={name} runs {" and ".join(supported)}, not {what!r}; take '
        f'--what={supported[0]}, or another baseline'
      )
    loaded.append(baseline)
  return loaded


def make_task(what: str, backbone: Transformer, latents: tuple[int, ...], context: int) -> JSON:
  """Returns what a baseline of a flow model has to do, in plain values.

  Returns:
    `what`; `latents` (b t h w c); `grid`, patches along t, h, w; `context`, tokens that
    cross-attention reads, and `text_dim`, numbers of each. Also the fields of the backbone named
    in `FIELDS`, `dtype`, `platform` (cpu, gpu or tpu) and the `threads` that a CPU may use. For
    'sample' also `times`, `guidance` and `solver` (`sampling.sampler_task`).
  """
  return {
    'what': what,
    'latents': tuple(latents),
    'grid': grid(latents, backbone.patch),
    'context': context,
    'text_dim': getattr(backbone, 'text_dim', backbone.dim),
    **{name: getattr(backbone, name) for name in FIELDS},
    'dtype': backbone.dtype.name,
    **_machine(),
  }


def make_forward_task(
  what: str, forward: Forward, inputs: Sequence[Array], params: Tree
) -> dict[str, Any]:
  """Returns the task of a baseline of an autoencoder, a codec or an encoder.

  Returns:
    The fields of the model, its `component`, `what` and `frames` of a video. Inputs are `x`, pixels
    or latents (b t h w c); for an encoder `tokens` and `mask` (b m), or `images` (b h w 3). Also
    `params`, ours as a tree of NumPy arrays, and `platform` and `threads` as in `make_task`.
  """
  model = forward.model
  fields = {name: getattr(model, name) for name in annotations(type(model))}
  names = {'clip_vision': ('images',)}.get(forward.component, ('x',))
  names = ('tokens', 'mask') if len(inputs) == 2 else names
  named_inputs = {name: np.asarray(array) for name, array in zip(names, inputs, strict=True)}
  return {
    **fields,
    'dtype': jax.numpy.dtype(model.dtype).name,
    'what': what,
    'component': forward.component,
    'frames': forward.sizes[1],
    **named_inputs,
    'params': jax.tree.map(np.asarray, params),
    **_machine(),
  }


def _machine() -> JSON:
  affinity = getattr(os, 'sched_getaffinity', None)
  return {
    'platform': jax.default_backend(),
    'threads': len(affinity(0)) if affinity else os.cpu_count(),
  }


def _load(path: str) -> tuple[Sequence[str], Baseline]:
  if not pathlib.Path(path).is_file():
    raise ConfigError(f'--baseline={path}: there is no such file; give {JAX} or a Python file')
  spec = importlib.util.spec_from_file_location(pathlib.Path(path).stem, path)
  module = importlib.util.module_from_spec(spec)
  try:
    spec.loader.exec_module(module)
  except ImportError as error:
    raise ConfigError(f'--baseline={path}: {error}; install what it needs') from error
  if not hasattr(module, 'make_programs') or not hasattr(module, 'WHAT'):
    raise ConfigError(
      f'--baseline={path} lacks WHAT or make_programs(task); see mgjax/lab/benchmarks/baselines.py'
    )
  return module.WHAT, Baseline(path, module.make_programs, getattr(module, 'DIFFERS', ''))


def _jax_programs(task: Mapping[str, Any]) -> dict[str, Programs]:
  """Makes programs of `jax.nn.dot_product_attention`, with cuDNN's kernel if it has the type."""
  dtype = compute_type(task['dtype'])
  fused = task['platform'] == 'gpu' and dtype.itemsize == 2
  kernel = 'cudnn' if fused else 'xla'
  b, t, h, w = task['latents'][0], *task['grid']
  sharding = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
  shape = (b, t * h * w, task['heads'], task['dim'] // task['heads'])
  shapes = (jax.ShapeDtypeStruct(shape, dtype, sharding=sharding),) * 4

  def forward(q, k, v, dy):
    return jax.nn.dot_product_attention(q, k, v, implementation=kernel)

  def both(q, k, v, dy):
    y, pull = jax.vjp(lambda q, k, v: forward(q, k, v, dy), q, k, v)
    return y, pull(dy)

  arguments = list(draw(shapes))
  programs = {FORWARD: forward, BOTH: both}
  return {
    f'{JAX} {kernel}': {
      name: repeated(compile_program(program, shapes).call, arguments)
      for name, program in programs.items()
    }
  }
