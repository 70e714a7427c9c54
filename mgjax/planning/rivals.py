"""Other implementations of what is timed: JAX's own attention, or a Python file.

A file, such as `tests/oracles/torch_attention.py`, has WHAT, the names of what it can run, and
`make_programs(task) -> {variant: {program: run}}`. A program goes by the name that ours has
(`subjects.py`), `run()` returns when it is done, and `task` is what `make_task` returns.
"""

import dataclasses
import importlib.util
import os
import pathlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
from ml_collections import ConfigDict

from mgjax.backbone.patch import grid
from mgjax.core.errors import ConfigError
from mgjax.core.precision import compute_type
from mgjax.planning.subjects import BOTH, FORWARD
from mgjax.planning.timing import Timed, compile_program, draw, repeated

JAX = 'jax.nn'
FIELDS = ('dim', 'depth', 'heads', 'hidden', 'positions', 'patch', 'epsilon', 'compute', 'remat')

Programs = dict[str, Timed]


@dataclasses.dataclass(frozen=True)
class Rival:
  """A name, and what makes its programs: task -> variant -> program -> run."""

  name: str
  make_programs: Callable[[Mapping[str, Any]], Mapping[str, Mapping[str, Timed]]]


def find_rivals(names: Sequence[str], what: str, devices: int) -> list[Rival]:
  """Finds rivals by name, before anything slow begins.

  Args:
    names: 'jax.nn' or paths of Python files.
    what: is timed.
    devices: of the mesh.

  Raises:
    ConfigError: there is no such rival, or it cannot run this.
  """
  if names and devices > 1:
    raise ConfigError(
      f'a rival runs on one device, and this mesh has {devices}; leave --rival away, or show this '
      'process one device, as with CUDA_VISIBLE_DEVICES=0'
    )
  found = []
  for name in names:
    able, make = (('attention',), _jax_programs) if name == JAX else _load(name)
    if what not in able:
      raise ConfigError(
        f'--rival={name} runs {" and ".join(able)}, not {what!r}; take --what={able[0]}, or '
        'another rival'
      )
    found.append(Rival(name, make))
  return found


def make_task(
  what: str, config: ConfigDict, latents: tuple[int, ...], context: int
) -> dict[str, Any]:
  """Returns what a rival has to do, in plain values.

  Returns:
    `what`; `latents` (b t h w c); `grid`, patches along t, h, w; `context`, tokens that
    cross-attention reads; the fields of the model named in `FIELDS`; `platform`: cpu, gpu or tpu;
    `threads` that a CPU may use.
  """
  model = config.model.to_dict()
  return {
    'what': what,
    'latents': tuple(latents),
    'grid': grid(latents, tuple(model['patch'])),
    'context': context,
    **{name: model[name] for name in FIELDS},
    'platform': jax.default_backend(),
    'threads': len(os.sched_getaffinity(0)) if hasattr(os, 'sched_getaffinity') else os.cpu_count(),
  }


def _load(path: str) -> tuple[Sequence[str], Callable[..., Any]]:
  if not pathlib.Path(path).is_file():
    raise ConfigError(f'--rival={path}: there is no such file; give {JAX} or a Python file')
  spec = importlib.util.spec_from_file_location(pathlib.Path(path).stem, path)
  module = importlib.util.module_from_spec(spec)
  try:
    spec.loader.exec_module(module)
  except ImportError as error:
    raise ConfigError(f'--rival={path}: {error}; install what it needs') from error
  if not hasattr(module, 'make_programs') or not hasattr(module, 'WHAT'):
    raise ConfigError(
      f'--rival={path} lacks WHAT or make_programs(task); see mgjax/planning/rivals.py'
    )
  return module.WHAT, module.make_programs


def _jax_programs(task: Mapping[str, Any]) -> dict[str, Programs]:
  """`jax.nn.dot_product_attention`: cuDNN's kernel where there is one for the type, else XLA's."""
  dtype = compute_type(task['compute'])
  fused = task['platform'] == 'gpu' and dtype.itemsize == 2
  kernel = 'cudnn' if fused else 'xla'
  b, t, h, w = task['latents'][0], *task['grid']
  place = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
  shape = (b, t * h * w, task['heads'], task['dim'] // task['heads'])
  shapes = (jax.ShapeDtypeStruct(shape, dtype, sharding=place),) * 4

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
