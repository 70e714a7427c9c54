"""Times programs: compiled once, warmed up, interleaved, each waited for."""

import contextlib
import dataclasses
import gc
import math
import os
import time
from collections.abc import Callable, Hashable, Iterator, Mapping
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import numpy as np

from mgjax.core.errors import ConfigError, is_out_of_memory
from mgjax.core.typing import Tree
from mgjax.parallel.compiler import compiler_options

Timed = Callable[[], object]  # runs a program once and returns when it is done
T = TypeVar('T')
K = TypeVar('K', bound=Hashable)

SPREAD = 0.1  # small: gates and scales of all layers multiply
WARM_UP = 2  # untimed runs: clocks rise, caches fill
FREE = 0.06  # of the memory that may be allocated, left for what the compiler does not count
DEPTHS = (2, 4)  # a loop of one layer is compiled as no loop, and needs other memory
COMPILED = '/jax/core/compile/backend_compile_duration'


@dataclasses.dataclass(frozen=True)
class CompiledProgram:
  """A program, compiled for arguments of given shapes: it cannot be compiled a second time.

  `bytes` are those on one device of arguments, results and what is temporary, shared ones once;
  `temporary` those of what lives during the run alone.
  """

  call: Callable[..., Tree]
  seconds: float
  bytes: int
  temporary: int


def compile_program(
  function: Callable[..., Tree],
  shapes: tuple[Tree, ...],
  *,
  donates: bool = False,
  out_shardings: Tree = None,
) -> CompiledProgram:
  """Compiles a function for arguments that need not exist yet; shapes have their shardings.

  `donates`: the first argument may be written over. `out_shardings` are as `jax.jit` takes them.
  """
  begin = time.perf_counter()
  jitted = jax.jit(function, donate_argnums=(0,) * donates, out_shardings=out_shardings)
  options = compiler_options(jax.devices()[0], jax.device_count())
  compiled = jitted.lower(*shapes).compile(compiler_options=options or None)
  seconds = time.perf_counter() - begin
  memory = compiled.memory_analysis()
  held = memory.argument_size_in_bytes + memory.output_size_in_bytes - memory.alias_size_in_bytes
  temporary = memory.temp_size_in_bytes
  return CompiledProgram(compiled, seconds, held + temporary, temporary)


def draw(shapes: Tree) -> Tree:
  """Draws normal numbers into arrays of given shapes, types and shardings; bools are True."""
  leaves, structure = jax.tree.flatten(shapes)

  def fill(key: jax.Array) -> list[jax.Array]:
    return [
      jnp.ones(leaf.shape, bool)
      if leaf.dtype == bool
      else SPREAD * jax.random.normal(jax.random.fold_in(key, index), leaf.shape, leaf.dtype)
      for index, leaf in enumerate(leaves)
    ]

  arrays = jax.jit(fill, out_shardings=[leaf.sharding for leaf in leaves])(jax.random.key(0))
  return jax.tree.unflatten(structure, arrays)


def repeated(call: Callable[..., Tree], arguments: list[Tree], *, donates: bool = False) -> Timed:
  """Binds a program to its arguments; a first one that it donates is replaced by its result."""

  def run() -> None:
    results = jax.block_until_ready(call(*arguments))
    if donates:
      arguments[0] = results[0]

  return run


def warm_up(run: Timed) -> None:
  """Runs a program as often as it takes until it runs as it will."""
  for _ in range(WARM_UP):
    run()


def interleave(programs: Mapping[K, Timed], rounds: int) -> dict[K, dict[str, float]]:
  """Times programs interleaved, so that a busy machine is busy for all.

  The first two rounds do not count. In them each program finds its memory anew after the others had
  theirs, and page faults are a third of a step on a CPU. Returns name -> minimum
  and median of the wall seconds, and minimum of the processor seconds.
  """
  for run in (*programs.values(), *programs.values()) if len(programs) > 1 else ():
    run()
  taken: dict[K, list[tuple[float, float]]] = {name: [] for name in programs}
  for _ in range(rounds):
    for name, run in programs.items():
      wall, cpu = time.perf_counter(), time.process_time()
      run()
      taken[name].append((time.perf_counter() - wall, time.process_time() - cpu))
  return {
    name: {
      'min': min(wall for wall, _ in times),
      'median': float(np.median([wall for wall, _ in times])),
      'cpu': min(cpu for _, cpu in times),
    }
    for name, times in taken.items()
  }


@contextlib.contextmanager
def counted_compilations() -> Iterator[list[float]]:
  """Gives a list that grows by the seconds of every compilation while the context lasts."""
  seconds: list[float] = []

  def listen(event: str, duration: float, **_: Any) -> None:
    if event == COMPILED:
      seconds.append(duration)

  jax.monitoring.register_event_duration_secs_listener(listen)
  try:
    yield seconds
  finally:
    jax.monitoring.unregister_event_duration_listener(listen)


def capacity() -> float:
  """Returns the bytes that may be allocated on one device."""
  devices = jax.local_devices()
  stats = [device.memory_stats() or {} for device in devices]
  if all('bytes_limit' in stat for stat in stats):
    return float(min(stat['bytes_limit'] for stat in stats))
  return os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES') / len(devices)


def estimate_depth(most: int, capacity: float, bytes_of: Callable[[int], int]) -> int:
  """Returns the most layers, at least 1, that leave `FREE` of the memory free.

  `bytes_of` maps layers to bytes on one device, a straight line above one layer; it may raise that
  memory does not suffice.
  """
  fewer_layers, more_layers = DEPTHS
  if most <= fewer_layers:
    return most
  try:
    fewer_bytes = bytes_of(fewer_layers)
    more_bytes = bytes_of(more_layers)
  except Exception as error:
    if not is_out_of_memory(error):
      raise
    return 1
  layer = (more_bytes - fewer_bytes) / (more_layers - fewer_layers)
  if layer <= 0:
    return most
  return min(max(fewer_layers + math.floor(((1 - FREE) * capacity - fewer_bytes) / layer), 1), most)


def halve_until_it_fits(attempt: Callable[[int], T], layers: int) -> tuple[T, int, list[str]]:
  """Calls attempt(layers), with half the layers after each time that memory does not suffice.

  Returns what it returned, the layers, and a note for each time. ConfigError: not one layer fits.
  """
  notes: list[str] = []
  while True:
    try:
      return attempt(layers), layers, notes
    except Exception as error:
      if not is_out_of_memory(error):
        raise
    # Here, because the error's traceback kept the arrays of the attempt alive.
    gc.collect()
    if layers == 1:
      raise ConfigError('not even one layer fits; give fewer rows or tokens in --latents')
    notes.append(f'{layers} layers were out of memory (a peak of the device is theirs): halved')
    layers //= 2
