"""The contrastive objectives against float64 numpy, and over eight devices as on one."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mgjax.models.clip.model import clip_model_inputs, make_clip_model
from mgjax.models.clip.objective import clip_objective, contrastive_loss, identity_loss
from tests.parallel.test_sharded_step import same as check_same
from tests.parallel.test_sharded_step import sharded_steps, two_steps
from tests.random_parameters import random_parameters

SCALE, WIDTH = 14.0, 8
# A product of unit vectors rounds WIDTH times, and each logit stands in both softmaxes.
TOLERANCE = 4 * SCALE * WIDTH * float(np.finfo(np.float32).eps)
CAPTIONS = {
  'distinct': np.arange(12),
  'repeated': np.array([0, 1, 0, 2, 2, 0, 3, 4, 1, 5, 6, 0]),
  'one': np.zeros(12, int),
}


def unit(rng, rows):
  x = rng.normal(size=(rows, WIDTH))
  return x / np.linalg.norm(x, axis=1, keepdims=True)


def expected(images, texts, captions):
  """Sum over rows and columns, one number after another, in float64."""
  logits, total, rows = SCALE * images @ texts.T, 0.0, len(captions)
  for table in (logits, logits.T):
    for i in range(rows):
      log_sum = np.log(np.exp(table[i]).sum())
      own = [j for j in range(rows) if captions[j] == captions[i]]
      total += sum(log_sum - table[i, j] for j in own) / len(own)
  return total / (2 * rows)


def loss_of(images, texts, captions):
  same = jnp.asarray(captions[:, None] == captions[None])
  as_float32 = [jnp.asarray(x, jnp.float32) for x in (images, texts, SCALE)]
  return contrastive_loss(*as_float32, same)


@pytest.mark.parametrize('name', CAPTIONS)
def test_the_loss_is_that_of_numpy_in_double_precision(name):
  rng, captions = np.random.default_rng(0), CAPTIONS[name]
  images, texts = unit(rng, len(captions)), unit(rng, captions.max() + 1)[captions]
  loss, metrics = loss_of(images, texts, captions)
  np.testing.assert_allclose(loss, expected(images, texts, captions), rtol=0, atol=TOLERANCE)
  count = (captions[:, None] == captions[None]).sum(axis=1)
  least = np.log(count).mean()
  np.testing.assert_allclose(metrics['excess'], loss - least, rtol=0, atol=TOLERANCE)
  nearest = (images @ texts.T).argmax(axis=1)
  assert metrics['image_to_text'] == pytest.approx((captions[nearest] == captions).mean())
  if name == 'one':  # all agree: there is nothing to tell apart on the side of the texts
    assert metrics['image_to_text'] == metrics['text_to_image'] == 1


def test_images_at_their_captions_have_the_least_loss_however_often_a_caption_comes():
  captions = CAPTIONS['repeated']
  vectors = np.eye(WIDTH)[captions]
  loss, metrics = loss_of(vectors, vectors, captions)
  # Each of the others has exp(-scale) of the weight.
  assert 0 <= metrics['excess'] < len(captions) * np.exp(-SCALE) + TOLERANCE
  assert metrics['image_to_text'] == metrics['text_to_image'] == 1
  mixed, _ = loss_of(vectors, vectors[::-1], captions)
  assert mixed > loss + 1


def expected_of_identities(vectors, identities):
  """Sum over images, one number after another, in float64."""
  logits, total, rows = SCALE * vectors @ vectors.T, 0.0, len(identities)
  for i in range(rows):
    others = [j for j in range(rows) if j != i]
    own = [j for j in others if identities[j] == identities[i]]
    log_sum = np.log(sum(np.exp(logits[i, j]) for j in others))
    total += sum(log_sum - logits[i, j] for j in own) / max(len(own), 1)
  return total / rows


IDENTITIES = {
  'in pairs': np.arange(12) // 2,
  'more often': CAPTIONS['repeated'],
  'one': CAPTIONS['one'],
  'none twice': CAPTIONS['distinct'],
}


@pytest.mark.parametrize('name', IDENTITIES)
def test_the_loss_of_identities_is_that_of_numpy_in_double_precision(name):
  identities = IDENTITIES[name]
  vectors = unit(np.random.default_rng(0), len(identities))
  as_float32 = jnp.asarray(vectors, jnp.float32), jnp.asarray(SCALE, jnp.float32)
  loss, metrics = identity_loss(*as_float32, jnp.asarray(identities))
  true = expected_of_identities(vectors, identities)
  np.testing.assert_allclose(loss, true, rtol=0, atol=TOLERANCE)
  cosines = vectors @ vectors.T - 3 * np.eye(len(vectors))
  own = identities[cosines.argmax(axis=1)] == identities
  assert metrics['identity_nearest'] == pytest.approx(own.mean())
  gradient = jax.grad(lambda x: identity_loss(x, *as_float32[1:], jnp.asarray(identities))[0])
  assert np.isfinite(gradient(as_float32[0])).all()


def test_images_of_an_identity_at_one_place_have_the_least_loss():
  identities = CAPTIONS['repeated']
  vectors = jnp.eye(WIDTH)[identities]
  loss, metrics = identity_loss(vectors, jnp.asarray(SCALE), jnp.asarray(identities))
  assert 0 <= metrics['identity_excess'] < len(identities) * np.exp(-SCALE) + TOLERANCE < loss
  twice = (identities[:, None] == identities[None]).sum(axis=1) > 1
  assert metrics['identity_nearest'] == pytest.approx(twice.mean())


TINY = {
  'text': {
    'vocabulary': 20,
    'dim': 16,
    'depth': 1,
    'heads': 4,
    'mlp_dim': 16,
    'positions': 5,
    'projection': 8,
    'eos': 1,
  },
  'vision': {
    'size': 8,
    'patch': 4,
    'dim': 16,
    'depth': 1,
    'heads': 4,
    'mlp_dim': 16,
    'projection': 8,
  },
}


def test_a_batch_says_whether_there_is_a_loss_of_identities():
  rng = np.random.default_rng(0)
  vectors = jnp.asarray(unit(rng, 4), jnp.float32)
  outputs = vectors, vectors[::-1], jnp.asarray(SCALE), vectors[:, ::-1], jnp.asarray(SCALE / 2)
  batch = {
    'images': jnp.zeros((4, 8, 8, 3)),
    'tokens': jnp.asarray([[3, 1], [4, 1], [3, 1], [5, 1]]),
    'tokens_mask': jnp.ones((4, 2), bool),
  }

  def loss(batch, outputs, **how):
    return clip_objective(lambda *_: outputs, batch, jax.random.key(0), **how)[0]

  captions = loss(batch, outputs[:3])
  assert loss(batch, outputs) == captions  # no identities, no loss of them
  batch['identity'] = jnp.asarray([7, 7, 9, 9])
  alike, _ = identity_loss(*outputs[3:], batch['identity'])
  assert loss(batch, outputs) == pytest.approx(float(captions + alike), rel=1e-6)
  for weight in (0.0, 0.5):
    wanted = float(captions + weight * alike)
    assert loss(batch, outputs, identity_weight=weight) == pytest.approx(wanted, rel=1e-6)


@pytest.mark.parametrize(
  ('rules', 'identity'), [('single', 0), ('fsdp_tp_cp', 0), ('fsdp_tp_cp', 8)]
)
def test_negatives_are_those_of_the_whole_batch_on_eight_devices(rules, identity):
  rng, model = np.random.default_rng(0), make_clip_model(TINY | {'identity': identity})
  captions = rng.integers(3, 20, (5, 5))[[0, 1, 2, 0, 3, 4, 1, 0]].astype(np.int32)
  captions[:, -1] = 1
  batch = {
    'images': rng.uniform(0, 1, (8, 8, 8, 3)).astype(np.float32),
    'tokens': captions,
    'tokens_mask': np.ones(captions.shape, bool),
  }
  if identity:
    batch['identity'] = np.array([0, 1, 0, 2, 2, 3, 1, 3])
  inputs = clip_model_inputs(model)
  start = random_parameters(model.init, *inputs)
  for name in start.keys() & {'log_scale', 'identity_log_scale'}:
    start[name] = jnp.asarray(np.log(SCALE), jnp.float32)
  alone = two_steps(model, clip_objective, start, jax.tree.map(jnp.asarray, batch))
  found, _ = sharded_steps(model, clip_objective, start, batch, inputs, rules)
  check_same(alone, found)
  pieces = [
    two_steps(model, clip_objective, start, {name: each[rows] for name, each in batch.items()})
    for rows in (slice(0, 4), slice(4, 8))
  ]
  assert np.mean([losses[0][0] for losses, _ in pieces]) != pytest.approx(alone[0][0][0], rel=0.05)
