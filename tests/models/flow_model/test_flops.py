"""The formula for the backbone's work against the report's numbers and XLA's own count."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import pytest

from mgjax.models.backbone.transformer import Transformer
from mgjax.models.conditioning.ports import GatedContext, Ports
from mgjax.models.flow_model.flops import backbone_flops

DIT = {'norm': 'layer', 'bias': True, 'affine': False, 'feed_forward': 'silu'}


def model_30b():
  return Transformer(dim=6144, depth=48, heads=48, mlp_dim=16384, positions=(32, 96, 96))


def test_a_sample_of_the_30b_model_takes_30_6_pflop():
  flops = backbone_flops(model_30b(), (1, 32, 96, 96, 16), context=512)
  assert flops.linear == pytest.approx(3.744e15, rel=1e-3)
  assert flops.self_attention == 4 * 73_728**2 * 6144 * 48
  assert flops.cross_attention == 4 * 73_728 * 512 * 6144 * 48
  assert flops.forward == pytest.approx(10.20e15, rel=1e-3)
  assert flops.training == pytest.approx(30.6e15, rel=1e-3)


def test_work_grows_with_rows_and_vanishes_without_context():
  model = model_30b()
  one, two = (backbone_flops(model, (rows, 1, 32, 32, 16), context=512) for rows in (1, 2))
  assert two.forward == 2 * one.forward
  alone = backbone_flops(model, (1, 1, 32, 32, 16), context=0)
  assert alone.cross_attention == 0
  projections = 48 * (4 * 256 * 6144**2 + 4 * 512 * 6144**2)  # of queries and out, keys and values
  assert one.linear - alone.linear == projections


@pytest.mark.parametrize(
  ('frames', 'dim', 'mlp_dim', 'context', 'gated', 'fields'),
  [
    (4, 128, 384, 32, (), {}),
    (1, 64, 64, 9, (), {}),
    (4, 128, 384, 32, (), DIT),
    (4, 128, 384, 32, (40,), {}),
    (2, 128, 384, 0, (40, 20), DIT),
  ],
  ids=['video', 'image', 'dit', 'gated', 'gated_alone'],
)
def test_formula_is_what_xla_counts(frames, dim, mlp_dim, context, gated, fields):
  depth, heads, rows = 2, 4, 2
  model = Transformer(
    dim, depth, heads, mlp_dim, positions=(frames, 8, 8), unroll=depth, attention='xla', **fields
  )
  groups = tuple(
    GatedContext(jnp.zeros((rows, m, dim)), jnp.ones((rows, m), bool), jnp.zeros((rows, 1)))
    for m in gated
  )
  arguments = (
    jnp.zeros((rows, frames, 16, 16, 16)),
    jnp.zeros(rows),
    Ports(context=jnp.zeros((rows, context, dim)) if context else None, gated=groups),
  )
  params = jax.eval_shape(lambda: nn.unbox(model.init(jax.random.key(0), *arguments)))
  counted = jax.jit(model.apply).lower(params, *arguments).compile().cost_analysis()['flops']
  flops = backbone_flops(model, arguments[0].shape, context, gated)

  # XLA counts an addition or multiplication of two numbers as one operation. Beside its matrix
  # products a layer has, per token, three norms (4 d each), two modulations (2 d), two gates (d),
  # three sums (d), positions (d) and the scaled query (d), below 32 d, also where norms have means
  # and maps biases; silu(x) y, below 8 f; and five operations a score and head, below 6. A group
  # behind a gate has a scaled query, a difference, a product and a sum. What happens once is less
  # than one layer more.
  tokens = frames * 8 * 8
  scores = heads * (tokens + context + sum(context + m for m in gated))
  beside = rows * (depth + 1) * tokens * (32 * dim + 8 * mlp_dim + 6 * scores)
  assert flops.forward <= counted <= flops.forward + beside
  assert beside < 0.15 * flops.forward  # or the comparison would say little
