"""The autoencoder: lengths and sizes, images as one-frame videos, what it is before training."""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mgjax.core.errors import ConfigError
from mgjax.models.tae import weights
from mgjax.models.tae.autoencoder import Autoencoder, Posterior, make_autoencoder
from mgjax.models.tae.blocks import FULL, AttentionBlock, Conv
from mgjax.nn.conv import SpatialConv, VolumeConv, centred
from tests.models.tae.test_inflate import untrained
from tests.random_parameters import random_parameters

EPS = np.finfo(np.float32).eps
FIELDS = {'latent_channels': 4, 'widths': (8, 8), 'blocks': 0, 'groups': 4}
STILL = {**FIELDS, 'strides': ((1, 2, 2),)}  # no compression of time
QUARTER = {**FIELDS, 'strides': ((2, 2, 2), (2, 1, 1))}
# Two dozen convolutions of at most 9 x 8 terms in a row, between values that norms keep near 1.
TOLERANCE = 24 * 72 * EPS


def video(*shape, seed=0):
  return jnp.asarray(np.random.default_rng(seed).uniform(-1, 1, shape), jnp.float32)


MODELS = {'still': Autoencoder(**STILL), 'quarter': Autoencoder(**QUARTER)}


@functools.cache
def parameters(name, fresh):
  """Drawn; temporal layers that are fresh have the values that two tests below hold."""
  if fresh:
    return untrained(MODELS[name])
  return random_parameters(MODELS[name].init, video(1, 2, 16, 16, 3), jax.random.key(0))


def encode(name, x, fresh=False):
  apply = jax.jit(functools.partial(MODELS[name].apply, method='encode'))
  return np.asarray(apply({'params': parameters(name, fresh)}, x).mean)


def decode(name, latents, fresh=False):
  apply = jax.jit(functools.partial(MODELS[name].apply, method='decode'))
  return np.asarray(apply({'params': parameters(name, fresh)}, latents))


@pytest.mark.parametrize(
  ('fields', 'frames', 'latent'),
  [
    *(({'widths': (8, 8, 8, 8)}, frames, (-(-frames // 8), 2, 3, 16)) for frames in (1, 7, 8, 17)),
    ({'widths': (8, 8), 'strides': ((2, 1, 1),), 'patch': (1, 4, 4)}, 5, (3, 4, 6, 16)),
  ],
)
def test_any_length_becomes_ceil_of_its_share_and_comes_back(fields, frames, latent):
  """A patch of pixels compresses as strides do."""
  model = Autoencoder(groups=4, **fields)
  x = jax.ShapeDtypeStruct((2, frames, 16, 24, 3), jnp.float32)
  shapes = jax.eval_shape(model.init_with_output, jax.random.key(0), x, jax.random.key(0))
  (again, posterior), _ = shapes
  assert model.compression == ((2, 4, 4) if 'patch' in fields else (8, 8, 8))
  assert posterior.mean.shape[1:] == model.latent_shape((frames, 16, 24)) == latent
  assert again.shape == x.shape


def test_at_first_strides_take_every_fourth_frame_and_show_it_four_times():
  x = video(1, 8, 16, 16, 3)
  latents = encode('quarter', x, fresh=True)
  alone = encode('quarter', x[0, ::4, None], fresh=True)
  np.testing.assert_allclose(latents[0], alone[:, 0], atol=TOLERANCE)
  again = decode('quarter', jnp.asarray(latents), fresh=True)
  assert again.shape == x.shape
  np.testing.assert_allclose(again, np.repeat(again[:, ::4], 4, axis=1), atol=TOLERANCE)


def test_after_training_frames_see_each_other_both_ways():
  """Not causal: the first latent frame depends on the last frame, too (§3.1.1)."""
  x = video(1, 8, 16, 16, 3)
  for changed, seen in ((0, -1), (-1, 0)):
    other = encode('quarter', x.at[:, changed].set(0.0))
    assert np.abs(other[:, seen] - encode('quarter', x)[:, seen]).max() > 1e-3


def test_only_the_wanted_frames_come_back():
  model, x = MODELS['quarter'], video(1, 2, 16, 16, 3)
  latents = jnp.asarray(encode('quarter', x))
  full = decode('quarter', latents)
  assert full.shape[1] == 4
  apply = functools.partial(model.apply, {'params': parameters('quarter', False)}, method='decode')
  some = jax.jit(lambda latents: apply(latents, 3))(latents)
  np.testing.assert_allclose(some, full[:, :3], atol=TOLERANCE)


def test_sizes_that_do_not_divide_are_a_sentence():
  model = Autoencoder(**{**STILL, 'patch': (1, 2, 2)})
  with pytest.raises(ConfigError, match='18 x 16 pixels do not divide by the compression 4 x 4'):
    jax.eval_shape(model.init, jax.random.key(0), video(1, 1, 18, 16, 3), jax.random.key(0))


@pytest.mark.parametrize(
  ('fields', 'message'),
  [
    ({'strides': ((2, 2, 2),) * 3}, '3 strides need as many widths'),
    ({'strides': ((4, 2, 2),)}, 'strides are 1 or 2 and equal in height and width'),
    ({'strides': ((1, 2, 1),)}, 'strides are 1 or 2 and equal in height and width'),
    ({'strides': (), 'patch': (2, 2, 2)}, 'patches do not fold time'),
    ({'strides': (), 'temporal': 'ful'}, "temporal = 'ful'; expected true, false or 'full'"),
  ],
)
def test_sizes_that_cannot_be_are_refused(fields, message):
  model = Autoencoder(**(FIELDS | fields))
  # The checks of types in tests stand between: they hand on the error as the cause of theirs.
  with pytest.raises((ConfigError, TypeError)) as caught:
    jax.eval_shape(model.init, jax.random.key(0), video(1, 1, 16, 16, 3), jax.random.key(0))
  assert message in str(caught.value.__cause__ or caught.value)


def test_posterior_samples_have_its_moments():
  posterior = Posterior(jnp.full((1, 1, 100, 100, 1), 2.0), jnp.full((1, 1, 100, 100, 1), -2.0))
  sample = np.asarray(posterior.sample(jax.random.key(0)))
  deviation = np.exp(-1)
  # Five standard errors of 10,000 draws.
  assert sample.mean() == pytest.approx(2, abs=5 * deviation / 100)
  assert sample.std() == pytest.approx(deviation, rel=5 / np.sqrt(2 * 10_000))


def test_bfloat16_is_read_from_its_name():
  described = {**FIELDS, 'strides': [[1, 2, 2]], 'patch': [1, 1, 1], 'dtype': 'bfloat16'}
  model = make_autoencoder(described | {'widths': [8, 16]})
  assert model.dtype == jnp.bfloat16
  assert (model.widths, model.strides) == ((8, 16), ((1, 2, 2),))
  x = video(1, 1, 16, 16, 3)
  shapes = jax.eval_shape(model.init_with_output, jax.random.key(0), x, jax.random.key(0))
  assert {leaf.dtype for leaf in jax.tree.leaves(shapes)} == {jnp.dtype('float32')}


def test_attention_is_among_places_then_among_frames():
  x = video(2, 3, 2, 4, 8)
  params = random_parameters(AttentionBlock(4).init, x)
  y = jax.jit(AttentionBlock(4).apply)({'params': params}, x)
  p = jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), params)

  def norm(part, x):
    groups = x.reshape(*x.shape[:4], 4, 2)
    axes = (2, 3, 5)
    z = groups - groups.mean(axes, keepdims=True)
    z = (z / np.sqrt((z**2).mean(axes, keepdims=True) + 1e-6)).reshape(x.shape)
    return z * p[f'{part}_norm']['scale'] + p[f'{part}_norm']['bias']

  def attention(part, x):  # (... n c)
    q, k, v = (
      x @ p[f'{part}_{name}']['kernel'] + p[f'{part}_{name}']['bias']
      for name in ('query', 'key', 'value')
    )
    weights = np.exp(q @ np.swapaxes(k, -1, -2) / np.sqrt(8))
    y = weights / weights.sum(-1, keepdims=True) @ v
    return y @ p[f'{part}_out']['kernel'] + p[f'{part}_out']['bias']

  exact = np.asarray(x, np.float64)
  exact = exact + attention('spatial', norm('spatial', exact).reshape(2, 3, 8, 8)).reshape(x.shape)
  moved = np.moveaxis(norm('temporal', exact), 1, 3)  # b h w t c
  exact = exact + np.moveaxis(attention('temporal', moved), 3, 1)
  # Sums over 16 numbers of a group, 8 channels four times, 8 places and 3 frames, for each part.
  np.testing.assert_allclose(y, exact, atol=2 * (16 + 4 * 8 + 8) * EPS * np.abs(exact).max())


def test_temporal_attention_starts_at_zero():
  params = jax.jit(AttentionBlock(4).init)(jax.random.key(0), video(1, 2, 2, 2, 8))
  params = nn.unbox(params)['params']
  assert not any(leaf.any() for leaf in params['temporal_out'].values())
  assert params['spatial_out']['kernel'].any()


def test_temporal_convolutions_start_as_the_identity():
  _, variables = jax.jit(Conv(4).init_with_output)(jax.random.key(0), video(1, 2, 2, 2, 4))
  params = nn.unbox(variables)['params']['temporal']
  np.testing.assert_array_equal(params['kernel'], centred(None, (3, 4, 4), jnp.float32))
  assert not params['bias'].any()


def mirrored(path, leaf):
  """Temporal kernels, the taps of which come first, read backwards."""
  *_, module, name = (entry.key for entry in path)
  return leaf[::-1] if (module, name) == ('temporal', 'kernel') else leaf


def test_time_has_no_direction():
  """With mirrored weights a video played backwards gives its latents backwards (§3.1.1)."""
  model, params = MODELS['quarter'], parameters('quarter', False)
  turned = jax.tree_util.tree_map_with_path(mirrored, params)
  x = video(1, 9, 16, 16, 3)  # 9, 5, 3 frames: strides meet the last one, too
  run = jax.jit(lambda params, x: model.apply({'params': params}, x, method='encode').mean)
  latents = np.asarray(run(params, x))
  assert np.abs(np.asarray(run(params, x[:, ::-1]))[:, ::-1] - latents).max() > 1e-3
  np.testing.assert_allclose(run(turned, x[:, ::-1])[:, ::-1], latents, atol=TOLERANCE)
  again = decode('quarter', jnp.asarray(latents))
  run = jax.jit(lambda params, x: model.apply({'params': params}, x, method='decode'))
  backwards = run(turned, jnp.asarray(latents[:, ::-1]))
  np.testing.assert_allclose(backwards[:, ::-1], again, atol=TOLERANCE)


def close(found, expected, terms):
  expected = np.asarray(expected)
  bound = terms * np.finfo(np.float32).eps * max(np.abs(expected).max(), 1)
  np.testing.assert_allclose(np.asarray(found), expected, atol=bound)


@pytest.mark.parametrize('upsample', [(1, 1, 1), (2, 1, 1), (1, 2, 2), (2, 2, 2)])
@pytest.mark.parametrize('frames', [1, 2, 5])
def test_a_3d_convolution_of_an_outer_product_is_its_2_5d_twin(frames, upsample):
  x = jax.random.normal(jax.random.key(2), (2, frames, 4, 6, 3))
  twin, full = (Conv(3, upsample, temporal=kind) for kind in (True, FULL))
  rng = np.random.default_rng(1)
  shapes = {'spatial': (3, 3, 3, 3), 'temporal': (3, 3, 3)}
  random = {
    part: {'kernel': rng.normal(size=shape), 'bias': rng.normal(size=3)}
    for part, shape in shapes.items()
  }
  kernel = np.einsum('hwim,tmo->thwio', random['spatial']['kernel'], random['temporal']['kernel'])
  (taps, _, _), time = shapes['temporal'], random['temporal']
  bias = sum(random['spatial']['bias'] @ time['kernel'][tap] for tap in range(taps)) + time['bias']
  expected = twin.apply({'params': jax.tree.map(jnp.float32, random)}, x)
  volume = {'kernel': jnp.float32(kernel), 'bias': jnp.float32(bias)}
  close(full.apply({'params': {'volume': volume}}, x), expected, 27 * 3 * 3)


def test_a_3d_convolution_starts_as_a_2d_one_and_3d_attention_reads_all_frames():
  x = jax.random.normal(jax.random.key(2), (1, 5, 4, 4, 8))
  y, params = VolumeConv(8).init_with_output(jax.random.key(0), x)
  plane = jax.tree.map(lambda leaf: leaf[1] if leaf.ndim > 1 else leaf, nn.unbox(params))
  close(y, SpatialConv(8).apply(plane, x), 9 * 8)
  image, full = (AttentionBlock(4, temporal=kind) for kind in (False, FULL))
  params = image.init(jax.random.key(0), x)
  alone = image.apply(params, x[:, :1])
  close(full.apply(params, x[:, :1]), alone, 64)
  moved = full.apply(params, x.at[:, 4].set(9.0))
  assert np.abs(moved - full.apply(params, x))[:, 0].max() > 1e-3  # the first frame sees the last


def test_a_3d_model_takes_and_gives_no_image_weights(tmp_path):
  fields = {'latent_channels': 4, 'widths': (8, 8), 'strides': ((2, 2, 2),), 'groups': 4}
  with pytest.raises(ConfigError, match=r"temporal = 'full': image weights are of 2\.5D models"):
    weights.AUTOENCODER_FORMAT.read(fields | {'temporal': FULL}, tmp_path, seed=0, keep_type=False)
  with pytest.raises(ConfigError, match="temporal = 'full': a 3D autoencoder holds no image model"):
    weights.AUTOENCODER_FORMAT.writers['diffusers']({}, fields | {'temporal': FULL}, {}, tmp_path)
