"""Compiles training steps ahead of time for TPUs and NVIDIA GPUs, without devices."""

import contextlib
import dataclasses
import os
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import topologies
from jax.sharding import Mesh, NamedSharding

from mgjax.core.errors import ConfigError
from mgjax.core.precision import BASE
from mgjax.core.typing import Tree
from mgjax.lab.planning.programs.gpu_targets import target_config
from mgjax.lab.planning.step_spec import FlowRun, StepSpec, make_flow_step_spec
from mgjax.models.flow_model.conditions import example_batch
from mgjax.nn.quantize import stored_shapes
from mgjax.parallel.chips import Topology
from mgjax.parallel.compiler import compiler_options
from mgjax.parallel.mesh import make_mesh
from mgjax.parallel.rules import partition
from mgjax.parallel.shard import batch_sharding
from mgjax.training.state import abstract_state, shardings_of

GIB = 2**30


@dataclasses.dataclass(frozen=True)
class CompiledStep:
  """Memory of a program by the compiler, GiB of one device, and the program's text.

  `peak_gib` is the most that lives at once; `hlo` is None where the text cannot be made.
  """

  arguments_gib: float
  temporary_gib: float
  peak_gib: float
  seconds: float
  hlo: str | None

  def as_json(self) -> dict[str, float]:
    """Returns memory, and how long it took to compile, as plain JSON values."""
    return {
      'peak_gib': self.peak_gib,
      'arguments_gib': self.arguments_gib,
      'temporary_gib': self.temporary_gib,
      'compile_seconds': self.seconds,
    }


def compile_step(
  run: FlowRun,
  topology: Topology,
  sizes: Mapping[str, int],
  latents: tuple[int, int, int, int],
  rows: int,
) -> CompiledStep:
  """Compiles forward, backward, AdamW and average for a topology; nothing runs.

  Raises ConfigError as `devices_of` does, or where the mesh does not fit the topology.
  """
  devices = devices_of(topology)
  mesh = make_mesh(sizes, devices=devices, torus=topology.torus)
  spec = make_flow_step_spec(run, latents[-1])
  state = abstract_state(spec.init, spec.optimizer, mesh)
  conditions = example_batch(spec.model, 'a', latents)
  shapes = {name: (array.shape[1:], array.dtype) for name, array in conditions.items()}
  shapes['latents'] = (latents, jnp.float32)
  sharding = batch_sharding(mesh)
  abstract = {
    name: jax.ShapeDtypeStruct((rows, *shape), dtype, sharding=sharding)
    for name, (shape, dtype) in shapes.items()
  }
  shardings = (shardings_of(state), None)
  frozen = frozen_shapes(spec, mesh)
  with jax.set_mesh(mesh):
    step = jax.jit(spec.make_step(), donate_argnums=0, out_shardings=shardings)
    return compile_lowered(lambda: step.lower(state, abstract, frozen), mesh)


def compile_lowered(lower: Callable[[], Any], mesh: Mesh) -> CompiledStep:
  """Compiles what `lower` returns, for the devices of a mesh."""
  began = time.monotonic()
  with warnings.catch_warnings():
    # Without a device no program can be read back from the cache: it is compiled again.
    warnings.filterwarnings('ignore', 'Error reading persistent compilation cache entry')
    options = compiler_options(mesh.devices.flat[0], mesh.size)
    compiled = lower().compile(compiler_options=options)
  seconds = time.monotonic() - began
  memory = compiled.memory_analysis()  # before the text, whose making may fail
  # The compiler's peak counts what waits in the host's memory as well; this sum cannot.
  everything = (
    memory.argument_size_in_bytes
    + memory.output_size_in_bytes
    - memory.alias_size_in_bytes
    + memory.temp_size_in_bytes
  )
  try:
    hlo = compiled.as_text()
  except Exception:
    hlo = None
  return CompiledStep(
    memory.argument_size_in_bytes / GIB,
    memory.temp_size_in_bytes / GIB,
    min(memory.peak_memory_in_bytes, everything) / GIB,
    seconds,
    hlo,
  )


def frozen_shapes(spec: StepSpec, mesh: Mesh) -> Tree | None:
  """Returns the shapes of the model that adapters change, by `BASE`; None if none is frozen."""
  if not (spec.lora.rank or spec.reference):
    return None
  boxed = jax.eval_shape(spec.init_model, jax.random.key(0))
  return {BASE: placed_shapes(stored_shapes(boxed, spec.lora.weights), mesh)}


def placed_shapes(boxes: Tree, mesh: Mesh) -> Tree:
  """Returns the shapes of weights as they lie on a mesh; `boxes` name their axes."""

  def placed(box) -> jax.ShapeDtypeStruct:
    sharding = NamedSharding(mesh, partition(box.names, box.value.shape, mesh))
    return jax.ShapeDtypeStruct(box.value.shape, box.value.dtype, sharding=sharding)

  return jax.tree.map(placed, boxes, is_leaf=lambda x: isinstance(x, nn.LogicallyPartitioned))


def devices_of(topology: Topology) -> list[Any]:
  """Returns the compiler's description of a topology's devices; none need be attached.

  Raises ConfigError if the compiler is not installed or does not support the topology.
  """
  chip, shape = topology.chip, topology.shape
  if topology.torus:
    compiler = 'libtpu'
    extra = 'tpu'
    around = _without_tpu()
    name = f'{chip.name}:{"x".join(map(str, shape[: chip.rank]))}'
    options = {'platform': 'tpu', 'topology_name': name}
  else:
    compiler = "JAX's CUDA plug-in"
    extra = 'cuda_compile'
    around = contextlib.nullcontext()
    options = {
      'platform': 'cuda',
      'topology_name': chip.name,
      'target_config': target_config(chip.name),
    }
    options['topology'] = f'1x{shape[1]}x{shape[0]}'  # slices x nodes x GPUs of one
  try:
    with around:
      description = topologies.get_topology_desc(**options)
  except Exception as error:
    problem = (str(error).splitlines() or [type(error).__name__])[0]
    raise ConfigError(
      f'cannot compile for {topology.name}: {problem}; the compiler is {compiler}, which '
      f"pip install -e '.[{extra}]' installs; a plan without --compile needs no compiler"
    ) from error
  return list(np.asarray(description.devices).reshape(-1))


@contextlib.contextmanager
def _without_tpu() -> Iterator[None]:
  """Tells libtpu not to look for a TPU, nor to refuse a second process that compiles as well.

  Without a type and a host it complains of both; any will do, the topology is another matter.
  """
  settings = {
    'TPU_SKIP_MDS_QUERY': '1',
    'ALLOW_MULTIPLE_LIBTPU_LOAD': '1',
    'TPU_ACCELERATOR_TYPE': os.environ.get('TPU_ACCELERATOR_TYPE', 'v5p-8'),
    'TPU_WORKER_HOSTNAMES': os.environ.get('TPU_WORKER_HOSTNAMES', 'localhost'),
  }
  before = {name: os.environ.get(name) for name in settings}
  os.environ.update(settings)
  try:
    yield
  finally:
    for name, value in before.items():
      if value is None:
        del os.environ[name]
      else:
        os.environ[name] = value
