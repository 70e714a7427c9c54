"""Both towers as one model: unit vectors, a scale with an end, one space."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mgjax.core.errors import ConfigError
from mgjax.models.clip.model import HIGHEST, clip_model_inputs, make_clip_model
from tests.models.clip.test_objective import TINY
from tests.random_parameters import random_parameters

IMAGES = jnp.asarray(np.random.default_rng(0).uniform(0, 1, (3, 8, 8, 3)), jnp.float32)
TOKENS = jnp.asarray([[3, 1, 0], [4, 5, 1]], jnp.int32)


def changed(tower, **fields):
  return TINY | {tower: TINY[tower] | fields}


@pytest.mark.parametrize('dtype', ['float32', 'bfloat16'])
def test_images_and_texts_are_unit_vectors_and_the_scale_ends_at_a_hundred(dtype):
  fields = {tower: each | {'dtype': dtype} for tower, each in TINY.items()}
  model = make_clip_model(fields)
  variables = {'params': random_parameters(model.init, *clip_model_inputs(model))}
  variables['params']['log_scale'] = jnp.asarray(math.log(20), jnp.float32)
  run = jax.jit(model.apply)
  seen, read, scale = run(variables, IMAGES, TOKENS, TOKENS > 0)
  for vectors, rows in ((seen, 3), (read, 2)):
    assert vectors.shape == (rows, 8) and vectors.dtype == jnp.float32
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-6)
  assert scale == pytest.approx(20, rel=1e-6)
  variables['params']['log_scale'] = jnp.asarray(math.log(3 * HIGHEST), jnp.float32)
  assert run(variables, IMAGES, TOKENS, TOKENS > 0)[2] == pytest.approx(HIGHEST, rel=1e-6)


def test_a_head_for_identities_adds_unit_vectors_and_changes_nothing_else():
  plain, model = make_clip_model(TINY), make_clip_model(TINY | {'identity': 6})
  params = random_parameters(model.init, *clip_model_inputs(model))
  own = {name: each for name, each in params.items() if not name.startswith('identity_')}
  shapes = jax.eval_shape(plain.init, jax.random.key(0), *clip_model_inputs(plain))['params']
  assert own.keys() == shapes.keys() and params.keys() - own.keys()
  expected = jax.jit(plain.apply)({'params': own}, IMAGES, TOKENS, TOKENS > 0)
  *found, vectors, scale = jax.jit(model.apply)({'params': params}, IMAGES, TOKENS, TOKENS > 0)
  for before, after in zip(expected, found, strict=True):
    np.testing.assert_allclose(before, after, atol=1e-6)
  assert vectors.shape == (3, 6) and scale.shape == ()
  np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-6)
  recognised = model.apply({'params': params}, IMAGES, method='recognise')
  np.testing.assert_allclose(recognised, vectors, atol=1e-6)


@pytest.mark.parametrize(
  ('fields', 'message'),
  [
    (changed('text', projection=4), r'text.projection = 4, model.vision.projection = 8; expected'),
    (changed('vision', projection=None), r'vision.projection = None; expected one number'),
    (TINY | {'temperature': 0.001}, r'model.temperature = 0.001; expected .* from 0.01'),
    (changed('vision', dmi=4), r'unknown key model.vision.dmi; did you mean'),
  ],
)
def test_towers_that_do_not_go_together_are_refused_by_the_field(fields, message):
  with pytest.raises(ConfigError, match=message):
    make_clip_model(fields)
