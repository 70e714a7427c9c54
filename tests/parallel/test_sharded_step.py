"""A step over eight devices is the step of one: losses and gradients at steps 0 and 1."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mgjax.backbone.transformer import Transformer
from mgjax.core.tree import named_leaves
from mgjax.flow.objective import make_objective
from mgjax.parallel.mesh import make_mesh
from mgjax.parallel.shard import parameter_shardings, put_batch
from mgjax.text.conditioning import ByteText
from mgjax.video.model import VideoModel
from tests.random_parameters import random_parameters

RATE = 0.1
# Sums of at most 8 rows x 8 tokens of gradients, each some 400 roundings a layer deep, in another
# order: roundings of either sign add like their square root.
TOLERANCE = float(np.sqrt(64 * 3 * 400) * np.finfo(np.float32).eps)


def model():
  text = ByteText(32, width=16, depth=1, heads=2, length=8, name='text')
  return VideoModel(Transformer(32, 2, 4, 48, (2, 2, 2), name='backbone'), (text,))


def data():
  rng = np.random.default_rng(0)
  return {
    'latents': rng.normal(size=(8, 2, 4, 4, 4)).astype(np.float32),
    'text': rng.integers(1, 200, (8, 8)).astype(np.int32),
  }


@jax.jit
def step(params, batch, number):
  """Returns the loss, the gradients, and the parameters after plain descent."""
  objective = make_objective(dropout={'text': 0.5})
  key = jax.random.fold_in(jax.random.key(0), number)

  def loss(params):
    return objective(functools.partial(model().apply, {'params': params}), batch, key)[0]

  value, gradients = jax.value_and_grad(loss)(params)
  return value, gradients, jax.tree.map(lambda p, g: p - RATE * g, params, gradients)


@pytest.fixture(scope='module')
def start():
  batch = data()
  inputs = (jnp.asarray(batch['latents']), jnp.zeros(8), {'text': jnp.asarray(batch['text'])}, {})
  boxed = jax.eval_shape(model().init, jax.random.key(0), *inputs)['params']
  return random_parameters(model().init, *inputs), boxed


@pytest.mark.parametrize('sizes', [{'fsdp': 8}, {'data': 2, 'fsdp': 4}], ids=str)
def test_sharded_steps_are_the_unsharded_ones(start, sizes):
  params, boxed = start
  mesh = make_mesh(sizes)
  shardings = parameter_shardings(boxed, mesh, 'fsdp')
  sharded = jax.tree.map(jax.device_put, params, shardings)
  assert not sharded['backbone']['layers']['feed_forward']['up']['kernel'].is_fully_replicated
  batch, placed = jax.tree.map(jnp.asarray, data()), put_batch(data(), mesh)
  for number in (0, 1):
    loss, gradients, params = step(params, batch, number)
    sharded_loss, sharded_gradients, sharded = step(sharded, placed, number)
    assert float(sharded_loss) == pytest.approx(float(loss), rel=TOLERANCE)
    largest = max(float(np.abs(leaf).max()) for leaf in jax.tree.leaves(gradients))
    expected = named_leaves(gradients)
    for name, leaf in named_leaves(sharded_gradients).items():
      np.testing.assert_allclose(
        leaf, expected[name], atol=TOLERANCE * largest, err_msg=f'{name} at step {number}'
      )
