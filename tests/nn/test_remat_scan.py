"""A stack is a loop of its layers, whatever is computed again."""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mgjax.nn.mlp import SwiGLU
from mgjax.nn.multihead import MultiHeadAttention
from mgjax.nn.norm import RMSNorm
from mgjax.nn.remat_scan import REMAT, stack

DEPTH = 3
EPS = np.finfo(np.float32).eps


class Layer(nn.Module):
  """What every policy has names to save in: attention, projections, and a shared argument."""

  @nn.compact
  def __call__(self, x, shared):
    x = x + MultiHeadAttention(2, 8, name='attention')(RMSNorm(name='norm')(x) + shared)
    return x + SwiGLU(24, name='feed')(x), None


def inputs():
  keys = jax.random.split(jax.random.key(0), 2)
  return jax.random.normal(keys[0], (2, 5, 16)), jax.random.normal(keys[1], (1, 1, 16))


def make(remat='nothing', unroll=1):
  return stack(Layer, depth=DEPTH, remat=remat, unroll=unroll)()


@functools.cache
def parameters():
  return nn.unbox(jax.jit(make().init)(jax.random.key(1), *inputs()))['params']


@pytest.mark.parametrize('unroll', [1, DEPTH])
def test_stack_is_a_loop_of_its_layers(unroll):
  params, (x, shared) = parameters(), inputs()
  y, _ = jax.jit(make(unroll=unroll).apply)({'params': params}, x, shared)
  apply = jax.jit(Layer().apply)
  for layer in range(DEPTH):
    own = jax.tree.map(lambda leaf, layer=layer: np.asarray(leaf)[layer], params)
    x, _ = apply({'params': own}, x, shared)
  # The same operations, compiled apart: sums of up to 24 terms may be taken in another order.
  np.testing.assert_allclose(y, x, atol=DEPTH * 24 * EPS * float(jnp.abs(x).max()))


def test_layers_start_different():
  for leaf in jax.tree.leaves(parameters()):
    assert leaf.shape[0] == DEPTH
    assert leaf.ndim == 2 or not jnp.array_equal(leaf[0], leaf[1])  # scales of norms start at 1


def test_layer_axis_has_its_name():
  boxed = jax.eval_shape(make().init, jax.random.key(1), *inputs())['params']
  assert boxed['feed']['up']['kernel'].names == ('layers', 'embed', 'hidden')


@pytest.mark.parametrize('remat', REMAT)
def test_every_policy_gives_the_same_gradients(remat):
  params, (x, shared) = parameters(), inputs()

  def gradients(remat):
    loss = lambda params: jnp.sum(jnp.sin(make(remat).apply({'params': params}, x, shared)[0]))  # noqa: E731
    return jax.jit(jax.grad(loss))(params)

  expected = gradients('nothing')
  largest = max(float(jnp.abs(leaf).max()) for leaf in jax.tree.leaves(expected))
  # Computed again or not, the operations are the same; fused otherwise, each may round once more.
  jax.tree.map(
    lambda g, e: np.testing.assert_allclose(g, e, atol=DEPTH * 100 * EPS * largest),
    gradients(remat),
    expected,
  )


def test_policies_save_less_and_less():
  params, (x, shared) = parameters(), inputs()

  def saved(remat):
    apply = lambda params: make(remat).apply({'params': params}, x, shared)[0]  # noqa: E731
    _, pull = jax.vjp(apply, params)
    return sum(leaf.size for leaf in jax.tree.leaves(pull))

  leanest_first = (
    'full',
    'attention',
    'attention_and_inputs',
    'attention_and_projections',
    'nothing',
  )
  sizes = [saved(remat) for remat in leanest_first]
  assert sizes == sorted(set(sizes))
