"""The codec of sound: its layers against their sums, its twin in PyTorch, any length, bad sound."""

import functools
import json

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mgjax.core.errors import ConfigError, DataError
from mgjax.core.tree import count_parameters
from mgjax.models.codec.layers import INPUTS, DownConv, ResidualUnit, UpConv, weight_norm
from mgjax.models.codec.model import Codec, kl
from mgjax.models.codec.weights import import_published
from mgjax.parallel.mesh import make_mesh
from tests.models.codec.shapes import shapes
from tests.oracles import codec as oracle
from tests.random_parameters import random_parameters

EPS = np.finfo(np.float32).eps
# Some 80 sums of up to 7 x 32 terms one after another, whose roundings of either sign add up as a
# random walk would reach 8e-6; most sums are shorter, and what is asked for is 1e-6 of the largest
# number. A layer left out, or alpha + 1e-4 for alpha + 1e-9, would be seen.
CLOSE = 1e-6
SMALL = Codec(**oracle.MODELS['stereo'])


@functools.cache
def vectors(name):
  """What the twin answered, and the shapes of its tensors."""
  with np.load(oracle.VECTORS) as file:
    found = {key.split('/')[1]: file[key] for key in file if key.startswith(f'{name}/')}
  return found | {'shapes': json.loads(str(found['shapes']))}


@functools.cache
def drawn(name):
  """The codec and parameters that the twin had."""
  codec = Codec(**oracle.MODELS[name])
  tensors = {key: oracle.draw(key, tuple(s)) for key, s in vectors(name)['shapes'].items()}
  params, _ = import_published(tensors, shapes(codec))
  return codec, jax.tree.map(jnp.asarray, params)


@functools.partial(jax.jit, static_argnums=0)
def both(codec, params, sound, latents):
  """Encodes sound and decodes latents in one program."""
  variables = {'params': params}
  decoded = codec.apply(variables, latents, method='decode')
  return codec.apply(variables, sound, method='encode'), decoded


def close(y, exact, largest=CLOSE):
  np.testing.assert_allclose(y, exact, rtol=0, atol=largest * np.abs(exact).max())


@pytest.mark.parametrize('name', oracle.MODELS)
def test_codec_answers_as_its_twin_in_pytorch_does(name):
  codec, params = drawn(name)
  expected = vectors(name)
  posterior, decoded = both(codec, params, oracle.draw_sound(name), oracle.draw_latents(name))
  close(posterior.mean, expected['mean'])
  close(posterior.scale, expected['scale'])
  close(posterior.std, expected['std'])
  close(decoded, expected['decoded'])
  close(kl(posterior), expected['kl'])


def test_codec_has_the_published_parameters():
  counts = {name: count_parameters(side) for name, side in shapes(Codec()).items()}
  # 107,671,171 are published, 14,675,873 of them for the watermark.
  assert counts.pop('encoder') == 27_288_704
  assert counts.pop('decoder') == 65_310_818
  assert sum(counts.values()) == 395_776
  assert count_parameters(shapes(Codec())) == 107_671_171 - 14_675_873


def test_weights_start_as_drawn():
  layer = UpConv(4, 2)
  params = nn.unbox(jax.jit(layer.init)(jax.random.key(0), jnp.zeros((1, 3, 6))))['params']
  kernel = params['kernel']
  assert params['scale'].shape == (6,)
  close(weight_norm(kernel, params['scale'], INPUTS), kernel, 2 * EPS)
  assert 0 < jnp.abs(kernel).max() <= 0.5  # of variance 1 / 12: two taps of 6 channels


def test_any_length_is_filled_up_by_reflection():
  codec = Codec(channels=2, width=2, strides=(8,), latent_channels=3, decoder_width=2)
  params = random_parameters(codec.init, jnp.zeros((1, 8, 2)), jax.random.key(0))
  variables = {'params': params}
  encode = jax.jit(functools.partial(codec.apply, method='encode'))
  for samples, count in ((1, 1), (3, 1), (9, 2)):
    sound = oracle.draw_sound('stereo')[:, :samples]
    filled = np.pad(sound, ((0, 0), (0, 8 * count - samples), (0, 0)), 'reflect')
    posterior = encode(variables, sound)
    assert posterior.mean.shape == (2, count, 3)
    close(posterior.mean, encode(variables, filled).mean)
    decoded, _ = jax.eval_shape(codec.apply, variables, sound, jax.random.key(0))
    assert decoded.shape == sound.shape


def test_a_patch_is_samples_folded_into_channels():
  plain = SMALL.clone(channels=3 * 2)
  folded = SMALL.clone(patch=3)
  params = random_parameters(plain.init, jnp.zeros((1, 8, 6)), jax.random.key(0))
  sound, latents = oracle.draw_sound('stereo')[:, : 2 * 24], oracle.draw_latents('stereo')[:, :2]
  posterior, decoded = both(plain, params, sound.reshape(2, -1, 6), latents)
  found, sounds = both(folded, params, sound, latents)
  np.testing.assert_array_equal(found.mean, posterior.mean)
  np.testing.assert_array_equal(sounds, np.asarray(decoded).reshape(2, -1, 2))
  assert folded.compression == 3 * plain.compression == 24
  assert both(folded, params, sound[:, :25], latents)[0].mean.shape == (2, 2, 5)


def test_reconstruction_decodes_one_draw_of_the_posterior():
  codec, params = drawn('stereo')
  sound, key = oracle.draw_sound('stereo'), jax.random.key(3)
  reconstruction, posterior = jax.jit(codec.apply)({'params': params}, sound, key)
  noise = jax.random.normal(key, posterior.mean.shape)
  close(posterior.sample(key), posterior.mean + noise * posterior.std)
  _, decoded = both(codec, params, sound, posterior.sample(key))
  close(reconstruction, decoded[:, : sound.shape[1]])


class EveryLayer(nn.Module):
  """One of each: what the codec repeats."""

  @nn.compact
  def __call__(self, x):
    x = DownConv(8, 2, name='down')(ResidualUnit(3, name='unit')(x))
    return UpConv(4, 2, name='up')(x)


def test_layers_on_a_mesh_answer_and_learn_as_on_one_device():
  model, x = EveryLayer(), jax.random.normal(jax.random.key(0), (2, 12, 4))
  params = nn.unbox(jax.eval_shape(model.init, jax.random.key(1), x))['params']
  rng = np.random.default_rng(1)
  params = jax.tree.map(lambda leaf: jnp.asarray(rng.normal(size=leaf.shape), jnp.float32), params)

  def learn(params, x):
    return jax.value_and_grad(lambda params: jnp.mean(model.apply({'params': params}, x) ** 2))(
      params
    )

  expected = jax.jit(learn)(params, x)
  with jax.set_mesh(make_mesh({'fsdp': 2, 'context': 2, 'tensor': 2})):
    found = jax.jit(learn)(params, x)
  largest = max(float(jnp.abs(leaf).max()) for leaf in jax.tree.leaves(expected))
  for one, other in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
    np.testing.assert_allclose(one, other, rtol=0, atol=CLOSE * largest)


def test_products_in_bfloat16_give_float32_at_both_ends():
  codec = SMALL.clone(dtype=jnp.bfloat16)
  sound, key = jax.ShapeDtypeStruct((1, 8, 2), jnp.float32), jax.random.key(0)
  variables = {'params': shapes(SMALL)}
  decoded, posterior = jax.eval_shape(codec.apply, variables, sound, key)
  assert {decoded.dtype, posterior.mean.dtype, posterior.scale.dtype} == {jnp.dtype(jnp.float32)}


@pytest.mark.parametrize(
  ('shape', 'dtype', 'message'),
  [
    ((1, 0, 2), 'float32', 'no samples; expected one at least'),
    ((1, 8, 1), 'float32', r'of shape \(1, 8, 1\); expected 3 axes, \(b s c\), with 2 channels'),
    ((1, 2, 8), 'float32', r'of shape \(1, 2, 8\); expected'),
    ((1, 8, 2), 'int16', 'is of int16; expected floats in .* divide 16-bit samples by 32768'),
  ],
)
def test_bad_sound_is_told_in_a_sentence(shape, dtype, message):
  sound = jnp.zeros(shape, dtype)
  with pytest.raises(DataError, match=message):
    SMALL.apply({'params': shapes(SMALL)}, sound, method='encode')


@pytest.mark.parametrize(
  ('shape', 'samples', 'message'),
  [
    ((1, 0, 5), None, r'of shape \(1, 0, 5\); expected .* one latent at least and 5 channels'),
    ((1, 4, 3), None, r'of shape \(1, 4, 3\); expected'),
    ((1, 4, 5), 33, '33 samples are asked of latents that stand for 32'),
    ((1, 4, 5), 0, '0 samples are asked of latents that stand for 32'),
  ],
)
def test_bad_latents_are_told_in_a_sentence(shape, samples, message):
  variables = {'params': shapes(SMALL)}
  with pytest.raises(DataError, match=message):
    SMALL.apply(variables, jnp.zeros(shape), samples, method='decode')


@pytest.mark.parametrize(
  ('fields', 'message'),
  [
    ({'strides': (2, 5)}, 'strides are even, as 2 or 12; got (2, 5)'),
    ({'strides': ()}, 'strides are even'),
    ({'patch': 0}, 'patch = 0; expected a whole number from 1'),
    ({'decoder_width': 6}, 'decoder_width 6 is halved 2 times; expected a multiple of 4'),
  ],
)
def test_bad_dimensions_are_told_in_a_sentence(fields, message):
  with pytest.raises((ConfigError, TypeError)) as caught:
    shapes(SMALL.clone(**fields))
  assert message in str(caught.value.__cause__ or caught.value)


@pytest.mark.parametrize('stride', [2, 8, 10])
def test_changing_the_rate_up_keeps_the_variance(stride):
  """Sums of 2 x 64 products of independent numbers: 1, to four deviations of 200 rows' mean."""
  x = jax.random.normal(jax.random.key(0), (200, 5, 64))
  y, _ = UpConv(32, stride).init_with_output(jax.random.key(1), x)
  middle = np.asarray(y)[:, 2 * stride : 3 * stride]
  assert middle.var() == pytest.approx(1, rel=4 / np.sqrt(200 * stride / 2))
