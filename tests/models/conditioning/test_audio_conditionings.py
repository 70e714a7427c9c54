"""Video and known sound are neutral in an untrained model, and reach their own frames."""

import jax
import jax.numpy as jnp
import numpy as np

from mgjax.models.backbone.transformer import Transformer
from mgjax.models.conditioning.frame_features import FrameFeatures
from mgjax.models.conditioning.known_latents import KnownLatents
from mgjax.models.flow_model.model import FlowModel
from tests.random_parameters import random_parameters

ROWS, FRAMES, DIM = 3, 5, 16
LATENTS = (FRAMES, 1, 1, 4)
KEEP, DROP = jnp.zeros(ROWS, bool), jnp.ones(ROWS, bool)
BATCH = {
  'frame_features': jax.random.normal(jax.random.key(0), (ROWS, FRAMES, 6)),
  'context': jax.random.normal(jax.random.key(1), (ROWS, FRAMES, 1, 1, 4)),
}
KINDS = {'video': FrameFeatures(DIM, 6, name='video'), 'context': KnownLatents(DIM, name='context')}


def init_of(module):
  return lambda key, batch, drop: module.init(key, batch, drop, LATENTS)


def tokens(kind, batch, drop, params):
  return np.asarray(KINDS[kind].apply({'params': params}, batch, drop, LATENTS).tokens)


def test_an_untrained_conditioning_adds_nothing():
  for kind, module in KINDS.items():
    params = jax.jit(module.init, static_argnums=3)(jax.random.key(0), BATCH, KEEP, LATENTS)[
      'params'
    ]
    assert not tokens(kind, BATCH, KEEP, params).any()


def test_a_frame_speaks_to_its_own_latent():
  for kind, module in KINDS.items():
    params = random_parameters(init_of(module), BATCH, KEEP)
    before = tokens(kind, BATCH, KEEP, params)
    assert before.shape == (ROWS, FRAMES, DIM)
    moved = {name: array.at[:, 2].add(1.0) for name, array in BATCH.items()}
    after = tokens(kind, moved, KEEP, params)
    changed = (before != after).any(axis=(0, 2))
    np.testing.assert_array_equal(changed, np.arange(FRAMES) == 2)


def test_no_video_is_a_dropped_video():
  params = random_parameters(init_of(KINDS['video']), BATCH, KEEP)
  none = {'frame_features': jnp.zeros((ROWS, FRAMES, 6))}
  given = tokens('video', none, KEEP, params)
  np.testing.assert_array_equal(given, tokens('video', BATCH, DROP, params))


def test_what_an_empty_picture_shows_is_taken_away():
  params = random_parameters(init_of(KINDS['video']), BATCH, KEEP)
  batch = {'frame_features': BATCH['frame_features'] - 1.0}
  shifted = FrameFeatures(DIM, 6, background=-1.0, name='video')
  found = shifted.apply({'params': params}, batch, KEEP, LATENTS).tokens
  np.testing.assert_allclose(found, tokens('video', BATCH, KEEP, params), atol=1e-5)


def test_the_context_is_a_concatenation_of_channels():
  """[x, context] W = x W_x + context W_c, to rounding."""
  backbone = Transformer(DIM, 1, 2, 32, (FRAMES, 1, 1), (1, 1, 1), feed_forward='gelu')
  model = FlowModel(backbone.clone(name='backbone'), (KINDS['context'],))
  x = jax.random.normal(jax.random.key(2), (ROWS, FRAMES, 1, 1, 4))
  inputs = (x, jnp.full(ROWS, 0.3), BATCH, {})
  params = random_parameters(model.init, *inputs)
  both = jnp.concatenate([x, BATCH['context']], axis=-1)
  kernels = (params['backbone']['patch_in']['kernel'], params['context']['project']['kernel'])
  alone = {**params['backbone'], 'patch_in': {'kernel': jnp.concatenate(kernels)}}
  wide = FlowModel(backbone.clone(name='backbone'))
  # The last map gives as many numbers as it reads: of the wider model only four are of the sound.
  out = params['backbone']['patch_out']['kernel']
  alone['patch_out'] = {'kernel': jnp.concatenate([out, jnp.zeros_like(out)], axis=1)}
  found = jax.jit(wide.apply)({'params': {'backbone': alone}}, both, inputs[1], {}, {})[..., :4]
  expected = jax.jit(model.apply)({'params': params}, *inputs)
  np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)
