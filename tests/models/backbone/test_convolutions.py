"""The discriminator of latents: what each of its logits sees, and that it reads."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mgjax.models.backbone.convolutions import Convolutions
from mgjax.models.conditioning.ports import Ports

MODEL = Convolutions(dim=8, depth=2)
SHAPE = (2, 3, 7, 7, 4)
TIME = jnp.ones(2)


def normal(shape, seed=0):
  return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def conditions(entries=3, masked=False):
  mask = jnp.arange(entries)[None] < (2 if masked else entries)
  context = jnp.asarray(normal((2, 3, 8), seed=1))[:, :entries]
  return Ports(context=context, context_mask=jnp.broadcast_to(mask, (2, entries)))


@pytest.fixture(scope='module')
def answer():
  x = jnp.asarray(normal(SHAPE))
  params = jax.jit(MODEL.init)(jax.random.key(0), x, TIME, conditions())
  # What starts as the identity over time learns to look at other frames.
  params = jax.tree.map(lambda p: p + 0.1 * jnp.asarray(normal(p.shape, seed=2)), params)
  apply = jax.jit(MODEL.apply)
  return lambda x, ports=None: np.asarray(apply(params, x, TIME, ports or conditions()))


def test_a_logit_sees_depth_tokens_to_each_side(answer):
  x = normal(SHAPE)
  moved = x.copy()
  moved[0, 0, 0, 0] += 1
  changed = np.any(answer(jnp.asarray(moved)) != answer(jnp.asarray(x)), axis=-1)
  assert answer(jnp.asarray(x)).shape == SHAPE and not changed[1].any()
  assert changed[0, :, :3, :3].all()  # three frames are within two to a side
  assert not changed[0, :, 3:].any() and not changed[0, :, :, 3:].any()


def test_it_reads_conditions_but_not_what_is_masked(answer):
  x = jnp.asarray(normal(SHAPE))
  assert np.all(np.any(answer(x) != answer(x, Ports()), axis=(1, 2, 3, 4)))
  masked, short = answer(x, conditions(masked=True)), answer(x, conditions(entries=2))
  np.testing.assert_allclose(masked, short, rtol=1e-5, atol=1e-6)  # a mean over two of three
  assert answer(x[:, :1]).shape == (2, 1, 7, 7, 4)  # pictures are clips of one frame
