"""Plans the upsampling of a video on a topology, by formula or compiler (Movie Gen §3.1.5)."""

import functools
from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.sharding import SingleDeviceSharding
from ml_collections import ConfigDict

from mgjax.conditioning.low_resolution import KEY
from mgjax.core.errors import ConfigError, first_line, is_out_of_memory
from mgjax.core.tree import count_parameters
from mgjax.flow.path import FlowMatching
from mgjax.flow_models.conditions import example_batch
from mgjax.parallel.chips import GIB, Topology, parse_topology
from mgjax.parallel.mesh import make_mesh
from mgjax.parallel.shard import batch_sharding
from mgjax.parallel.torus import assign_axes
from mgjax.planning.aot import CompiledStep, compile_lowered, tpu_devices
from mgjax.planning.efficiency import Ends, bounds, describe_efficiency, rates_of, words
from mgjax.planning.sampling.film import (
  FRAMES,
  SIZE,
  Calls,
  Film,
  Work,
  choose_mesh,
  codec_flops,
  codec_params,
  count_calls,
  decode_bytes,
  make_work,
  memory,
  seconds_of,
)
from mgjax.planning.search import FREE, mesh_flag
from mgjax.planning.text_encoder import placed_shapes
from mgjax.planning.workload import make_sizes
from mgjax.upsampler.geometry import CHUNK
from mgjax.upsampler.velocity import make_tiled_velocity

VELOCITY, DECODE = 'velocity', 'decode'
ASSUMED = (
  'convolutions as linear maps, nothing for communication and element-wise work (assumed); the '
  'autoencoder works on one chip'
)


def plan_upsampling(
  config: ConfigDict,
  topology: str,
  sizes: Mapping[str, int] | None = None,
  *,
  frames: int = FRAMES,
  size: tuple[int, int] = SIZE,
  rows: int = 0,
  compiled: bool = False,
) -> dict[str, Any]:
  """Says what it takes to make a video of a size with an upsampler.

  Windows of time and tiles of space are those of `mgjax.upsampler.pipeline`, counted by sending an
  empty wave front down the film; peak and seconds are those of one chip and of all together.

  Args:
    config: of the component 'upsampler'.
    topology: as 'v5p:1x1x1' or 'h200:8'.
    sizes: of the mesh; by default all windows that fit on `data`, tokens on `context`.
    frames: of the video.
    size: its height and width in pixels.
    rows: of a call of the model; 0 is one a group of chips that shares a row.
    compiled: compile both programs for the topology, and take memory from the compiler.

  Returns:
    Plain JSON values.

  Raises:
    ConfigError: the video is none that can be made; the mesh does not fit; or the topology is not
      of TPUs, or the compiler for them is not installed.
  """
  work, place = make_work(config, Film(frames, *size, rows)), parse_topology(topology)
  mesh = make_sizes(sizes) if sizes else choose_mesh(work, place)
  _check_mesh(mesh, place)
  calls = count_calls(work, mesh)
  parts = {name: each / GIB for name, each in memory(work, calls, mesh).items()}
  encode, decode = codec_flops(work)
  evaluations = calls.needed * work.tiles * work.branches
  run = calls.programs * calls.windows * -(-work.tiles // calls.tiles) * calls.tiles
  model, film = evaluations * work.flops.forward, frames / work.fps
  peak, codec = place.chip.flops * place.devices, (encode + decode) / place.chip.flops
  rates, seconds = rates_of(place.chip.name), seconds_of(work, place, run * work.branches)
  slow, fast = (
    (total + codec / each.linear) / film
    for total, each in ((seconds.slow, rates.slow), (seconds.fast, rates.fast))
  )
  answer = {
    'topology': topology,
    'mesh': dict(mesh),
    'frames': frames,
    'size': list(size),
    'fps': work.fps,
    'seconds_of_film': film,
    'parameters': count_parameters(nn.unbox(work.boxes)),
    'window': [work.times.size, *(_pixels(work, axis) for axis in (0, 1))],
    'windows': len(work.times.starts),
    'overlap': work.overlap,
    'tiles': [len(cover.starts) for cover in work.covers],
    'shared_pixels': [
      cover.feather * step
      for cover, step in zip(work.covers, work.codec.model.compression[1:], strict=True)
    ],
    'latents': [frames, *work.window[1:]],
    'tokens': work.tokens,
    'context': work.context,
    'steps': work.sample.steps,
    'solver': work.sample.solver,
    'branches': work.branches,
    'calls': evaluations,
    'calls_run': run * work.branches,
    'programs_run': calls.programs,
    'windows_a_program': calls.windows,
    'frames_held': calls.held,
    'flops': {
      'call': work.flops.forward,
      'model': model,
      'encode': encode,
      'decode': decode,
      'second_of_film': (model + encode + decode) / film,
    },
    'seconds_a_second_of_film': {
      'peak': (model / peak + codec) / film,
      **bounds(Ends(slow, fast)),
    },
    'gib': parts | {'decode, beside the weights': decode_bytes(work) / GIB},
    'host_gib': calls.held * 4 * 4 * _numbers(work) / GIB,
    'peak_gib': max(sum(parts.values()), parts['weights'] + decode_bytes(work) / GIB),
    'gib_of_a_chip': place.chip.memory / GIB,
    'notes': [
      *work.notes,
      'compiled, not run' if compiled else 'estimated by formula',
      *describe_efficiency(place.chip.name),
      ASSUMED,
    ],
  }
  if compiled:
    answer['programs'] = _compile(work, calls, place, mesh)
    found = answer['programs']
    if not any('refused' in program for program in found.values()):
      beside = found[DECODE]['peak_gib'] + parts['weights']
      answer['peak_gib'] = max(found[VELOCITY]['peak_gib'], beside)
  beside = parts['weights'] * GIB + decode_bytes(work)
  if beside > (1 - FREE) * place.chip.memory and not work.codec.tiling.size:
    answer['notes'].append(
      'decoding whole frames beside the weights does not fit; give the autoencoder tiles of space, '
      'as tiling.size = 512'
    )
  refused = any('refused' in program for program in answer.get('programs', {}).values())
  answer['fits'] = not refused and answer['peak_gib'] * GIB <= (1 - FREE) * place.chip.memory
  return answer


def describe_upsampling(answer: Mapping[str, Any]) -> str:
  """Returns what `plan_upsampling` found as a table for people."""
  flops, seconds = answer['flops'], answer['seconds_a_second_of_film']
  (rows, columns), (height, width) = answer['tiles'], answer['size']
  frames, *crop = answer['window']
  shared = ' and '.join(map(str, answer['shared_pixels']))
  lines = [
    f'model       {answer["parameters"]:,} parameters in bfloat16',
    f'film        {answer["frames"]} frames of {height} x {width}, {answer["fps"]:g} a second',
    f'windows     {answer["windows"]} of {frames} frames that share {answer["overlap"]}',
    f'tiles       {rows} x {columns} of {crop[0]} x {crop[1]} pixels that share {shared}; '
    f'{answer["tokens"]:,} tokens each, {answer["context"]:,} of text',
    f'calls       {answer["calls"]:,}: {answer["steps"]} steps of {answer["solver"]} x '
    f'{answer["windows"]} windows x {rows * columns} tiles x {answer["branches"]} of guidance; '
    f'{answer["calls_run"]:,} with rows that only fill a program, of {answer["programs_run"]:,} '
    f'runs with {answer["windows_a_program"]} windows',
    f'FLOPs       {flops["call"]:.3e} a call, {flops["second_of_film"]:.3e} a second of film; the '
    f'film: model {flops["model"]:.3e}, encode {flops["encode"]:.3e}, decode {flops["decode"]:.3e}',
    '',
    f'on {answer["topology"]}, mesh {mesh_flag(answer["mesh"]) or "of one chip"}: '
    f'{seconds["peak"]:,.3g} s a second of film at 100% of the peak, '
    f'{words(Ends(seconds["high"], seconds["low"]), ",.3g")} s at the shares below',
    *(f'  {name:28} {value:8.2f} GiB' for name, value in answer['gib'].items()),
    f'  {"the host, latents":28} {answer["host_gib"]:8.2f} GiB, of {answer["frames_held"]} frames',
  ]
  for name, program in answer.get('programs', {}).items():
    said = program.get('refused') or (
      f'{program["peak_gib"]:.2f} GiB at the peak, compiled in {program["compile_seconds"]:.0f} s'
    )
    lines.append(f'  {name:28} {said}')
  verdict = 'fits' if answer['fits'] else 'does not fit'
  lines.append(
    f'  {"peak":28} {answer["peak_gib"]:8.2f} of {answer["gib_of_a_chip"]:.0f} GiB: {verdict}'
  )
  return '\n'.join([*lines, *answer['notes']])


def _check_mesh(sizes: Mapping[str, int], topology: Topology) -> None:
  """Raises ConfigError for a mesh that is not of the topology's devices."""
  count = functools.reduce(lambda x, y: x * y, sizes.values())
  if count != topology.devices:
    raise ConfigError(
      f'a mesh of {count} devices on {topology.name}, which has {topology.devices}; give sizes '
      'whose product that is'
    )
  if topology.torus:
    assign_axes(dict(sizes), topology.torus)


def _pixels(work: Work, axis: int) -> int:
  return work.covers[axis].size * work.codec.model.compression[1 + axis]


def _numbers(work: Work) -> int:
  """Counts the numbers of a frame's latents, of which the host keeps four copies in float32."""
  _, rows, columns, channels = work.window
  return rows * columns * channels


def _compile(
  work: Work, calls: Calls, topology: Topology, sizes: Mapping[str, int]
) -> dict[str, dict[str, Any]]:
  """Compiles the velocity of windows as the pipeline makes it, and the decoding of a few frames."""
  devices = tpu_devices(topology)
  mesh = make_mesh(sizes, devices=devices, torus=topology.torus)
  place = batch_sharding(mesh)

  velocity = make_tiled_velocity(
    work.model,
    work.covers,
    prediction=FlowMatching(),
    guidance=work.sample.guidance,
    rows=calls.windows * calls.tiles,
  )

  def rows_of(shape: tuple[int, ...], dtype: Any) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct((calls.windows, *shape), dtype, sharding=place)

  example = jax.eval_shape(lambda: example_batch(work.model, 'a', work.tile))
  batch = {name: rows_of(like.shape[1:], like.dtype) for name, like in example.items()}
  batch[KEY] = rows_of(work.window, jnp.float32)
  x, time = rows_of(work.window, jnp.float32), rows_of((), jnp.float32)
  params = placed_shapes(work.boxes, mesh)
  with jax.set_mesh(mesh):
    found = {
      VELOCITY: _compiled(
        lambda: jax.jit(velocity).lower(params, batch, x, time), mesh.devices.flat[0]
      )
    }
  one = SingleDeviceSharding(devices[0])

  def on_chip(leaf: Any) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=one)

  weights = jax.tree.map(on_chip, codec_params(work.codec.model))
  latents = on_chip(jax.ShapeDtypeStruct((1, CHUNK, *work.window[1:]), jnp.float32))
  run = jax.jit(work.codec.decode_tile)
  return found | {DECODE: _compiled(lambda: run.lower(weights, latents), devices[0])}


def _compiled(lower: Any, device: Any) -> dict[str, Any]:
  try:
    result: CompiledStep = compile_lowered(lower, device)
  except jax.errors.JaxRuntimeError as error:
    if not is_out_of_memory(error):
      raise
    return {'refused': first_line(error)}
  return {
    'peak_gib': result.peak_gib,
    'temporary_gib': result.temporary_gib,
    'compile_seconds': result.seconds,
  }
