"""What is computed again and kept, against the programs that JAX traces."""

import functools
import math

import flax.linen as nn
import jax
import jax.numpy as jnp
import pytest
from jax.interpreters import partial_eval

from mgjax.core.errors import ConfigError
from mgjax.lab.planning.policies import (
  ORDER,
  POLICIES,
  find_policy,
  recomputed_attention,
  recomputed_linear,
)
from mgjax.lab.planning.workload import Workload
from mgjax.models.backbone.transformer import Transformer
from mgjax.models.conditioning.ports import Ports
from mgjax.models.flow_model.flops import MATRICES, backbone_flops
from mgjax.nn.remat_scan import REMAT

DIM, HIDDEN, DEPTH, HEADS, ROWS, CONTEXT = 48, 80, 3, 4, 2, 5
LATENTS = (ROWS, 2, 8, 8, 4)
TOKENS = 32
DIT = {'norm': 'layer', 'bias': True}
KINDS = {
  **{name: {'feed_forward': name} for name in MATRICES},
  'dit': {**DIT, 'feed_forward': 'silu', 'affine': False},
  'affine_dit': {**DIT, 'feed_forward': 'gelu'},
}


def products(jaxpr) -> int:
  """Counts the operations of all matrix products, loops included."""
  total = 0
  for equation in jaxpr.eqns:
    if equation.primitive.name == 'dot_general':
      (contracted, _), _ = equation.params['dimension_numbers']
      left = equation.invars[0].aval.shape
      total += (
        2 * math.prod(equation.outvars[0].aval.shape) * math.prod(left[axis] for axis in contracted)
      )
    turns = equation.params.get('length', 1) if equation.primitive.name == 'scan' else 1
    for inner in jax.tree.leaves(list(equation.params.values()), is_leaf=_is_jaxpr):
      if _is_jaxpr(inner):
        total += turns * products(getattr(inner, 'jaxpr', inner))
  return total


def _is_jaxpr(value) -> bool:
  return hasattr(value, 'eqns') or hasattr(value, 'jaxpr')


@functools.cache
def traced(remat: str, kind: str):
  """Returns the program of a training step's gradients, without what nobody needs."""
  how = {'remat': remat, 'attention': 'blockwise', 'dtype': jnp.bfloat16, **KINDS[kind]}
  model = Transformer(DIM, DEPTH, HEADS, HIDDEN, (2, 4, 4), **how)
  ports = Ports(context=jnp.zeros((ROWS, CONTEXT, DIM)))
  inputs = (jnp.zeros(LATENTS), jnp.zeros(ROWS), ports)
  params = jax.eval_shape(lambda: nn.unbox(model.init(jax.random.key(0), *inputs)))

  def loss(params):
    return (model.apply(params, *inputs) ** 2).sum()

  traced = jax.make_jaxpr(jax.grad(loss))(params)
  return partial_eval.dce_jaxpr(traced.jaxpr, [True] * len(traced.jaxpr.outvars))[0]


def kept(remat: str, kind: str) -> int:
  """Counts the bytes of every token that the loop over layers leaves for the backward pass."""
  loop = next(each for each in traced(remat, kind).eqns if each.primitive.name == 'scan')
  left = [each.aval for each in loop.outvars[loop.params['num_carry'] :]]
  # (layers, rows, tokens, ...), or rows and tokens as one; heads before tokens in log-sum-exps.
  ours = [each for each in left if math.prod(each.shape[1:3]) in (ROWS * TOKENS, ROWS * HEADS)]
  ours += [each for each in left if each.shape[1] == ROWS * TOKENS]
  return sum(each.size * each.dtype.itemsize for each in ours)


def workload(kind: str) -> Workload:
  model = Transformer(DIM, DEPTH, HEADS, HIDDEN, (2, 4, 4), **KINDS[kind])
  flops = backbone_flops(model, (1, *LATENTS[1:]), CONTEXT)
  sizes = {
    'dim': DIM,
    'mlp_dim': HIDDEN,
    'depth': DEPTH,
    'heads': HEADS,
    'itemsize': 2,
    'stream_itemsize': 2,
  }
  sizes |= {'feed_forward': model.feed_forward, 'affine': model.affine}
  samples = {'bucket': 'video', 'shape': (16, 64, 64), 'latents': LATENTS[1:], 'tokens': TOKENS}
  chosen = {'mesh': {}, 'remat': 'full', 'exchange': 'auto', 'batch': 8}
  chosen |= {'attention': 'auto'}
  return Workload(context=CONTEXT, parameters=(), flops=flops, **sizes, **samples, **chosen)


ALL_KINDS = pytest.mark.parametrize('kind', KINDS)


@ALL_KINDS
@pytest.mark.parametrize('remat', [name for name in ORDER if name != 'nothing'])
def test_what_a_policy_computes_again_is_what_the_traced_program_does(remat, kind):
  policy, work = find_policy(remat), workload(kind)
  again = recomputed_linear(policy, work) + recomputed_attention(policy, work)
  assert products(traced(remat, kind)) - products(traced('nothing', kind)) == ROWS * again


@ALL_KINDS
@pytest.mark.parametrize('remat', ORDER)
def test_what_a_policy_keeps_is_what_the_traced_program_does(remat, kind):
  policy, places = find_policy(remat), DEPTH * ROWS * TOKENS
  work = workload(kind)
  arrays = policy.keeps_d + work.affine * policy.keeps_norms
  widths = 2 * (arrays * DIM + policy.keeps_f[work.feed_forward] * HIDDEN)
  log_sums = 4 * HEADS * policy.keeps_sums
  norms = 4 * 6 if remat == 'nothing' else 0  # means and inverse deviations, below a number in d
  assert kept(remat, kind) == places * (widths + log_sums + norms)


def test_every_policy_of_the_model_is_known_from_the_leanest_on():
  assert set(POLICIES) == set(REMAT) == set(ORDER)
  kept = [POLICIES[name].keeps_d * (not POLICIES[name].offloads) for name in ORDER]
  assert kept == sorted(kept)
  with pytest.raises(ConfigError, match=r"^unknown remat policy 'most'; expected one of full, "):
    find_policy('most')
