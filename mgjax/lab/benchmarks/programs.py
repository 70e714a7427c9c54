"""The programs of a flow model that are timed: training step, forward pass, layers, attention."""

import dataclasses
import functools
import math
from collections.abc import Callable, Mapping, Sequence

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.sharding import Mesh, NamedSharding

from mgjax.core.errors import ConfigError
from mgjax.core.precision import BASE
from mgjax.core.tree import count_parameters
from mgjax.core.typing import Array, Batch, Key, Tree
from mgjax.lab.benchmarks.timing import draw
from mgjax.lab.planning.aot import frozen_shapes
from mgjax.lab.planning.step_spec import StepSpec
from mgjax.models.backbone.block import Block
from mgjax.models.backbone.transformer import Transformer
from mgjax.models.flow_model.conditions import example_batch
from mgjax.models.flow_model.flops import FORWARD_AND_BACKWARD, backbone_flops
from mgjax.models.flow_model.model import FlowModel
from mgjax.nn.attention import attend
from mgjax.nn.patch import grid
from mgjax.nn.quantize import store
from mgjax.nn.remat_scan import stack
from mgjax.parallel.distributed import rows_of_process
from mgjax.parallel.rules import BATCH, Entry, fit, size, spec, token_entries, tokens_missing
from mgjax.parallel.shard import make_initialise, put_batch
from mgjax.training.state import abstract_state, shardings_of, start_state

FORWARD = 'forward'
BOTH = 'forward_backward'
STEP = 'step'


@dataclasses.dataclass(frozen=True)
class Programs:
  """Programs that read the same arguments.

  Attributes:
    programs: name -> pure function of the arguments.
    flops: name -> operations of the model's matrix products, attention counted; what is computed
      again to save memory is no part of them.
    shapes: of the arguments, with their shardings.
    allocate: makes random arguments.
    out_shardings: of the results; None leaves them to the compiler.
    donates: the first argument is used up, and the first result takes its place.
  """

  programs: Mapping[str, Callable[..., Tree]]
  flops: Mapping[str, int]
  shapes: tuple[Tree, ...]
  allocate: Callable[[], tuple[Tree, ...]]
  parameters: int = 0
  out_shardings: Tree = None
  donates: bool = False


def make_programs(
  what: str, spec: StepSpec, latents: tuple[int, ...], context: int, mesh: Mesh
) -> Programs:
  """Makes the programs to be timed, without allocating anything large; the mesh is ambient.

  step        forward, backward, AdamW and average, as a run takes it, also of adapters
  forward     latents, flow times and prompts to velocities
  blocks      the layers alone: tokens to tokens, and with gradients of whatever they read
  attention   self-attention of one layer: q, k, v to its result, and with their gradients

  `latents` are (b t h w c), `context` the tokens that cross-attention reads. Raises ConfigError
  where something does not exist or does not divide.
  """
  if what not in WHAT:
    raise ConfigError(
      f'there is no {what!r} to time; expected one of {", ".join([*WHAT, "sample"])}'
    )
  check_rows(latents, mesh)
  return WHAT[what](spec, latents, context, mesh)


def check_rows(latents: tuple[int, ...], mesh: Mesh) -> None:
  """Raises ConfigError for rows of a batch that the mesh cannot share."""
  if latents[0] % (groups := size(mesh, BATCH)):
    raise ConfigError(
      f'{latents[0]} rows do not divide over {groups} groups of devices; take {groups} rows or a '
      'multiple in --latents, or put devices that share a row on --config.mesh.context'
    )


def _step(spec: StepSpec, latents, context: int, mesh: Mesh) -> Programs:
  initialise, _ = make_initialise(spec.init, mesh)
  shapes = abstract_state(spec.init, spec.optimizer, mesh)
  batch = make_batch(spec.model, latents, context, mesh)
  # Given up, or the parameters would be there twice.
  begin = jax.jit(
    lambda params: start_state(params, spec.optimizer),
    out_shardings=shardings_of(shapes),
    donate_argnums=0,
  )
  flops = backbone_flops(spec.model.backbone, latents, context)
  frozen = frozen_shapes(spec, mesh)

  def make_frozen(key: Key) -> Tree:
    return frozen and {BASE: store(nn.unbox(spec.init_model(key)), spec.lora.weights)}

  allocate_frozen = jax.jit(make_frozen, out_shardings=frozen and shardings_of(frozen))
  return Programs(
    programs={STEP: spec.make_step()},
    # Frozen matrices have no gradients of their own.
    flops={STEP: flops.training - flops.linear * bool(spec.lora.rank)},
    shapes=(shapes, batch, frozen),
    allocate=lambda: (
      begin(initialise(jax.random.key(0))),
      batch,
      allocate_frozen(jax.random.key(1)),
    ),
    parameters=count_parameters(shapes.params),
    out_shardings=(shardings_of(shapes), None),
    donates=True,
  )


def _forward(spec: StepSpec, latents, context: int, mesh: Mesh) -> Programs:
  initialise, shardings = make_initialise(spec.init, mesh)
  shapes = program_shapes(initialise, shardings)
  batch = make_batch(spec.model, latents, context, mesh)

  def forward(params: Tree, batch: Batch) -> Array:
    time = jnp.full(latents[0], 0.5)
    return spec.model.apply({'params': params}, batch['latents'], time, batch, {})

  return Programs(
    programs={FORWARD: forward},
    flops={FORWARD: backbone_flops(spec.model.backbone, latents, context).forward},
    shapes=(shapes, batch),
    allocate=lambda: (initialise(jax.random.key(0)), batch),
    parameters=count_parameters(shapes),
  )


def _blocks(spec: StepSpec, latents, context: int, mesh: Mesh) -> Programs:
  backbone = spec.model.backbone
  d, dtype = backbone.dim, backbone.dtype
  layers = stack(Block, depth=backbone.depth, remat=backbone.remat, unroll=backbone.unroll)(
    heads=backbone.heads,
    mlp_dim=backbone.mlp_dim,
    feed_forward=backbone.feed_forward,
    norm=backbone.norm,
    affine=backbone.affine,
    bias=backbone.bias,
    epsilon=backbone.epsilon,
    attention=backbone.attention,
    exchange=backbone.exchange,
    dtype=dtype,
    tiles=backbone.tiles(grid(latents, backbone.patch)),
  )
  small = [jnp.zeros((1, length, d)) for length in (1, 6, 1, 1)]
  tiles = layers.tiles and dataclasses.replace(layers.tiles, grid=(1, 1, 1), tile=(1, 1, 1))
  initialise, shardings = make_initialise(
    lambda key: layers.clone(tiles=tiles).init(key, *small, jnp.ones((1, 1), bool))['params'], mesh
  )
  b, n, valid = _tokens(backbone, latents)
  rows = fit(BATCH, b, mesh)
  token_axes = token_entries((b, n, d), mesh)
  array = functools.partial(_array, mesh)
  inputs = (  # tokens, modulation, positions, context
    array((b, n, d), dtype, token_axes),
    array((b, 6, d), dtype, [rows, (), ()]),
    # As the backbone gives them: one copy on one device, on a mesh one a row.
    array((1, n, d), jnp.float32, [(), (), ()])
    if mesh.size == 1
    else array((b, n, d), jnp.float32, token_axes),
    array((b, context, d), dtype, [rows, (), ()]) if context else None,
  )
  # Arguments, not constants: the compiler would remove a mask that is constantly True.
  masks = (array((b, context), bool, [rows, ()]) if context else None, valid and array(*valid))

  def forward(params, inputs, masks, _):
    return layers.apply({'params': params}, *inputs, *masks)[0]

  def both(params, inputs, masks, dy):
    y, pull = jax.vjp(lambda params, inputs: forward(params, inputs, masks, None), params, inputs)
    return y, pull(dy)

  shapes = (program_shapes(initialise, shardings), inputs, masks, inputs[0])
  with_layers = backbone_flops(backbone, latents, context)
  without_layers = backbone_flops(backbone.clone(depth=0), latents, context)
  return Programs(
    programs={FORWARD: forward, BOTH: both},
    flops={
      FORWARD: with_layers.forward - without_layers.forward,
      BOTH: with_layers.training - without_layers.training,
    },
    shapes=shapes,
    allocate=lambda: (initialise(jax.random.key(0)), *draw(shapes[1:])),
    parameters=count_parameters(shapes[0]),
  )


def _attention(spec: StepSpec, latents, context: int, mesh: Mesh) -> Programs:
  backbone = spec.model.backbone
  g = backbone.heads
  k = backbone.dim // backbone.heads
  b, n, valid = _tokens(backbone, latents)
  entries = [fit(BATCH, b, mesh), fit(('context',), n, mesh), fit(('tensor',), g, mesh), ()]
  array = functools.partial(_array, mesh)
  x = array((b, n, g, k), backbone.dtype, entries)
  mask = valid and array(*valid)

  sizes = grid(latents, backbone.patch)
  tokens, tiles = math.prod(sizes), backbone.tiles(sizes)

  def forward(q, k, v, dy, mask):
    how = {'impl': backbone.attention, 'exchange': backbone.exchange, 'tiles': tiles}
    return attend(q, k, v, mask=mask, **how)

  def both(q, k, v, dy, mask):
    y, pull = jax.vjp(lambda q, k, v: forward(q, k, v, dy, mask), q, k, v)
    return y, pull(dy)

  # Q K^T and P V of all heads; what fills tokens up on a mesh does not count.
  flops = 4 * b * tokens * (tiles.keys if tiles else tokens) * g * k
  shapes = (x, x, x, x, mask)
  return Programs(
    programs={FORWARD: forward, BOTH: both},
    flops={FORWARD: flops, BOTH: FORWARD_AND_BACKWARD * flops},
    shapes=shapes,
    allocate=lambda: draw(shapes),
  )


WHAT = {'step': _step, 'forward': _forward, 'blocks': _blocks, 'attention': _attention}


def _array(mesh: Mesh, shape: Sequence[int], dtype: object, entries: Sequence[Entry]):
  sharding = NamedSharding(mesh, spec(entries))
  return jax.ShapeDtypeStruct(tuple(shape), dtype, sharding=sharding)


def make_batch(model: FlowModel, latents: tuple[int, ...], context: int, mesh: Mesh) -> Batch:
  """Returns random latents, and prompts as long as they may be, on the devices."""
  rows = latents[0] // rows_of_process(mesh, jax.process_index())[1]  # those of this process
  batch = example_batch(model, 'x' * max(context - 1, 1), latents[1:], rows)
  batch['latents'] = jax.random.normal(jax.random.key(0), (rows, *latents[1:]))
  return put_batch(batch, mesh)


def program_shapes(make: Callable[[Key], Tree], shardings: Tree) -> Tree:
  """Returns the shapes of the result of `make(key)`, with the given shardings."""
  return jax.tree.map(
    lambda leaf, sharding: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding),
    jax.eval_shape(make, jax.random.key(0)),
    shardings,
  )


def _tokens(backbone: Transformer, latents: tuple[int, ...]):
  """Returns rows, tokens with those that fill them up on this mesh, and then their mask's shape."""
  count = math.prod(grid(latents, backbone.patch))
  missing = tokens_missing(count)
  b = latents[0]
  n = count + missing
  return b, n, ((b, n), bool, [(), ()]) if missing else None
