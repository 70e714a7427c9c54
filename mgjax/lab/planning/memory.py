"""Peak memory per chip of a training step, by category: `peak_memory` is the formula."""

import dataclasses
import math
from collections.abc import Iterator, Mapping

import flax.linen as nn
import jax

from mgjax.core.typing import Tree
from mgjax.lab.planning.policies import find_policy
from mgjax.lab.planning.workload import Parameter, Workload, sharding_axes
from mgjax.nn.attention import heads_exchanged, parts_of_heads
from mgjax.nn.kernels.tpu_blocks import backward_chunks
from mgjax.parallel.chips import Chip
from mgjax.parallel.rules import partition, size

FLOAT32 = 4
BLOCK = 2048  # keys that one step of splash's backward kernel reads

# Arrays of width d that the backward pass of one layer holds at its peak: the inputs of its
# three parts and what they are norms of (6), q, k, v and the result of self-attention (4), query
# and result of cross-attention with the kernel's float32 copy (4), dQ, dK and dV, for which room is
# made before they are computed (3), and the gradient (1).
LAYER_D = 18
# ... and of width f: gate, up and their product's gradient; a DiT's network has no gate.
LAYER_F = {'swiglu': 3, 'gelu': 2, 'silu': 2}
# What the backward attention kernel reads and writes: q, k, v, dO, dQ, dK, dV, the sum of dQ.
KERNEL_D = 8
# ... and a ring besides: dQ, dK, dV in float32, and keys and values on their way.
RING_D = 10
# Outside the layers: their input, their result, its gradient.
OUTSIDE_D = 3
# Layers whose checkpoints are on the way to the host's memory or back.
IN_FLIGHT = 2


@dataclasses.dataclass(frozen=True)
class ChipShare:
  """The part of a step's samples and tokens that one chip has.

  Between the products of a layer a sample has `tokens` here, inside them `gathered`, since tensor
  parallelism splits features there. `context` and `tensor` are the shards of these axes.
  """

  rows: int
  tokens: int
  gathered: int
  context: int
  tensor: int


def share_of_chip(work: Workload, sizes: Mapping[str, int], rows: int) -> ChipShare:
  """Returns one chip's share of a step of `rows` samples; tokens are padded to divide."""
  groups = sizes['slice'] * sizes['data'] * sizes['fsdp']
  context, tensor = sizes['context'], sizes['tensor']
  tokens = math.ceil(work.tokens / (context * tensor))
  return ChipShare(rows * work.clips // groups, tokens, tokens * tensor, context, tensor)


def parameter_bytes(
  work: Workload, sizes: Mapping[str, int], itemsize: int = FLOAT32, trained_only: bool = False
) -> int:
  """Counts the bytes of one copy of the parameters on one chip, `itemsize` a number."""
  pieces = _pieces(work, sizes)
  return itemsize * sum(
    count for parameter, _, count in pieces if parameter.trained or not trained_only
  )


def moment_bytes(work: Workload, sizes: Mapping[str, int]) -> int:
  """Counts the bytes of the optimizer's moments on one chip: two of AdamW, one of Muon."""
  return FLOAT32 * sum(e.moments * count for e, _, count in _pieces(work, sizes) if e.trained)


def weight_bytes(boxes: Tree, sizes: Mapping[str, int]) -> int:
  """Counts the bytes of weights on one chip; `boxes` name the axes of their shapes."""
  mesh = jax.sharding.AbstractMesh(tuple(sizes.values()), tuple(sizes))
  total = 0
  for box in jax.tree.leaves(boxes, is_leaf=lambda x: isinstance(x, nn.LogicallyPartitioned)):
    shape = box.value.shape
    spec = partition(box.names, box.value.shape, mesh)
    cuts = [axes if isinstance(axes, tuple) else (axes,) for axes in spec if axes]
    pieces = math.prod(size(mesh, axes) for axes in cuts)
    total += math.prod(shape) * box.value.dtype.itemsize // pieces
  return total


def peak_memory(
  work: Workload, sizes: Mapping[str, int], rows: int, remat: str, exchange: str, chip: Chip
) -> dict[str, int]:
  """Returns category -> bytes on one chip at the peak of the backward pass; their sum is the peak.

  parameters, moments, average   float32, in pieces over fsdp, context and tensor; moments and
  gradients                      gradients only of what `optimizer.rates` does not freeze; what
                                 adapters change in the type of `lora.weights`, without an average
  cast weights                   the layers' pieces in the compute type, cast before the loop; for
                                 GPUs XLA casts a layer at a time
  checkpoints                    what the policy keeps of all layers (`policies.py`)
  weights outside the layers     whole, kept from the forward pass for the backward one
  weights of a layer             all its matrices, whole: gathered once for what is computed again
                                 and for the gradients; where gathers are asynchronous, two more
  activations outside the layers positions and their gradient, ends of the loop
  activations of a layer         in the backward pass of its FFN, or of its attention
  """
  local = share_of_chip(work, sizes, rows)
  pieces = list(_pieces(work, sizes))
  trained = parameter_bytes(work, sizes, trained_only=True)
  activation = local.rows * local.tokens * work.dim * work.itemsize  # an activation of width d
  wide = local.rows * local.tokens * work.mlp_dim * work.itemsize
  offloads = find_policy(remat).offloads
  peak = {
    'parameters': sum(parameter.itemsize * count for parameter, _, count in pieces),
    'moments': moment_bytes(work, sizes),
    'average': FLOAT32 * sum(count for parameter, _, count in pieces if parameter.averaged),
    'gradients': trained,
  }
  cast = (
    count
    for parameter, _, count in pieces
    if chip.rank and parameter.depth and parameter.itemsize > work.itemsize
  )
  peak['cast weights'] = sum(cast) * work.itemsize
  checkpoints = checkpoint_bytes(work, sizes, rows, remat)
  peak['checkpoints'] = IN_FLIGHT * checkpoints // work.depth if offloads else checkpoints
  # Those in pieces, which are gathered before they are used.
  outside = (e.size for e, axes, _ in _pieces(work, sizes) if axes and not e.depth and not e.stays)
  peak['weights outside the layers'] = sum(outside) * work.itemsize
  positions = local.tokens * work.dim * (work.itemsize + FLOAT32)
  peak['activations outside the layers'] = positions + OUTSIDE_D * activation
  return peak | _layer(work, local, activation, wide, exchange, chip)


def checkpoint_bytes(work: Workload, sizes: Mapping[str, int], rows: int, remat: str) -> int:
  """Counts the bytes that a policy keeps of all layers, here or in the host's memory."""
  policy = find_policy(remat)
  local = share_of_chip(work, sizes, rows)
  arrays = policy.keeps_d + work.affine * policy.keeps_norms
  widths = arrays * work.dim + policy.keeps_f[work.feed_forward] * work.mlp_dim
  sums = policy.keeps_sums * work.heads * FLOAT32
  # One of the arrays is the input of a layer.
  wider = work.dim * (work.stream_itemsize - work.itemsize)
  return work.depth * local.rows * local.tokens * (widths * work.itemsize + wider + sums)


def _layer(
  work: Workload, local: ChipShare, activation: int, wide: int, exchange: str, chip: Chip
) -> dict[str, int]:
  """Returns the larger of two peaks: the backward pass of the FFN, and that of self-attention."""
  matrices = [p.size // p.depth for p in work.parameters if p.depth and len(p.shape) > 2]
  ahead = 2 * max(matrices, default=0) if chip.gathers_ahead else 0
  square = work.dim**2
  ffn = (sum(matrices) + ahead) * work.itemsize // local.tensor
  ffn_activations = LAYER_D * activation + LAYER_F[work.feed_forward] * wide
  attention = (4 * square + ahead) * work.itemsize // local.tensor
  attention_activations = LAYER_D * activation + _kernel(work, local, exchange, activation, chip)
  weights, activations = max(
    (ffn, ffn_activations), (attention, attention_activations), key=lambda pair: sum(pair)
  )
  return {'weights of a layer': weights, 'activations of a layer': activations}


@dataclasses.dataclass(frozen=True)
class AttentionCall:
  """What the backward kernel of self-attention is called with on one chip.

  Queries and keys are a head's, heads those of all samples of the chip, cut into `parts` with a
  call each; a ring makes `steps` calls for a part, as keys come by.
  """

  queries: int
  keys: int
  heads: int
  parts: int = 1
  steps: int = 1


def attention_call(work: Workload, local: ChipShare, exchange: str) -> AttentionCall:
  """Returns how often, and on what, a chip calls the kernel for one layer.

  An exchange of heads gathers the tokens of u of c shards on a chip, a ring passes the other c / u;
  without either, all keys are gathered.
  """
  heads = work.heads // local.tensor
  own = local.gathered
  if exchange == 'gather' or local.context == 1:
    return AttentionCall(own, own * local.context, local.rows * heads)
  among = heads_exchanged(heads, local.context, exchange)
  parts = parts_of_heads(heads, local.context, among)
  steps = local.context // among
  return AttentionCall(own * among, own * among, local.rows * heads // among, parts, steps)


def partial_gradients(work: Workload, call: AttentionCall, chip: Chip) -> tuple[int, int]:
  """Counts the bytes of partial gradients that a backward kernel leaves: at once, and of a layer.

  splash, on a TPU    dQ, one a block of 2048 keys; heads take turns
  ours, on a TPU      dK and dV in float32, one a chunk of queries where there are several
                      (`nn/kernels/tpu_blocks.py`); those of a call are there at once
  cuDNN's, on a GPU   dQ in float32 (assumed)
  """
  size = work.dim // work.heads
  together = call.heads // call.parts
  if not chip.rank:
    once = call.queries * size * FLOAT32 * together
  elif work.attention == 'splash':
    once = math.ceil(call.keys / BLOCK) * call.queries * size * work.itemsize
    together = 1
  else:
    chunks = backward_chunks(call.queries, size, together)
    once = 2 * chunks * call.keys * size * FLOAT32 * together if chunks > 1 else 0
  return once, once * call.heads // together * call.steps


def _kernel(work: Workload, local: ChipShare, exchange: str, activation: int, chip: Chip) -> int:
  """Counts the bytes of the backward attention kernel beside the layer's activations.

  Arrays that it reads and writes, and partial gradients. A ring passes dK and dV in float32, and
  where all keys are gathered so are their gradients.
  """
  call = attention_call(work, local, exchange)
  arrays = KERNEL_D * activation
  if local.context > 1 and exchange == 'gather':
    arrays += 4 * (local.context - 1) * activation
  elif call.steps > 1:
    arrays += RING_D * activation
  return arrays + partial_gradients(work, call, chip)[0]


def _pieces(
  work: Workload, sizes: Mapping[str, int]
) -> Iterator[tuple[Parameter, tuple[str, ...], int]]:
  """Yields every parameter with the mesh axes that shard it, and its numbers on one chip."""
  entries = sharding_axes(work.parameters, tuple(sizes.values()))
  for parameter, entry in zip(work.parameters, entries, strict=True):
    yield parameter, entry, parameter.size // math.prod(sizes[axis] for axis in entry)
