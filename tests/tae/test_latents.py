"""Bytes, units, statistics and the codec that joins them."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mgjax.tae.autoencoder import Autoencoder
from mgjax.tae.latents import LatentCodec, Statistics, estimate_statistics, to_bytes, to_unit
from tests.random_parameters import random_parameters

EPS = np.finfo(np.float32).eps
MODEL = Autoencoder(latent_channels=4, widths=(8, 8), strides=((2, 2, 2),), blocks=0, groups=4)
STATISTICS = Statistics((0.5, -1.0, 0.0, 2.0), (0.5, 1.0, 2.0, 4.0))


def clip(rows=2, frames=3, seed=0):
  shape = (rows, frames, 8, 8, 3)
  return jnp.asarray(np.random.default_rng(seed).integers(0, 256, shape), jnp.uint8)


@pytest.fixture(scope='module')
def params():
  return random_parameters(MODEL.init, to_unit(clip()), jax.random.key(0))


@pytest.fixture(scope='module')
def plain(params):
  return LatentCodec(MODEL, params, Statistics((0.0,) * 4, (1.0,) * 4))


@pytest.fixture(scope='module')
def codec(params):
  return LatentCodec(MODEL, params, STATISTICS)


def test_every_byte_comes_back():
  values = jnp.arange(256, dtype=jnp.uint8).reshape(1, 1, 1, 256, 1).repeat(3, axis=-1)
  unit = to_unit(values)
  assert (float(unit.min()), float(unit.max())) == (-1, 1)
  np.testing.assert_array_equal(to_bytes(unit), values)


def test_bytes_are_rounded_and_clipped():
  unit = jnp.array([-3.0, -1.0, -0.9999, 0.0039, 1.0, 7.0]).reshape(1, 1, 1, 2, 3)
  assert to_bytes(unit).ravel().tolist() == [0, 0, 0, 128, 255, 255]
  assert to_bytes(unit.astype(jnp.bfloat16)).dtype == jnp.uint8


def test_statistics_are_numpys():
  rng = np.random.default_rng(0)
  arrays = [rng.normal(3, 2, (n, 2, 3, 3, 4)).astype(np.float32) for n in (1, 5, 2)]
  found = estimate_statistics(arrays)
  rows = np.concatenate(arrays).reshape(-1, 4).astype(np.float64)
  np.testing.assert_allclose(found.mean, rows.mean(0), rtol=1e-12)
  np.testing.assert_allclose(found.std, rows.std(0), rtol=1e-12)


def test_a_channel_that_never_moves_has_no_zero_deviation():
  found = estimate_statistics([np.full((1, 1, 2, 2, 1), 7.0)])
  assert found.mean == (7.0,)
  assert found.std[0] > 0


def test_statistics_of_nothing_are_refused():
  with pytest.raises(ValueError, match='no latents'):
    estimate_statistics([])


def test_statistics_survive_json():
  assert Statistics.from_dict(STATISTICS.as_dict()) == STATISTICS


def test_codec_normalises_the_posterior_mean(params, codec):
  encode = jax.jit(lambda x: MODEL.apply({'params': params}, x, method='encode').mean)
  mean = np.asarray(encode(to_unit(clip())))
  latents = np.asarray(codec.encode(clip()))
  assert latents.shape == (2, *codec.latent_shape((3, 8, 8)))
  exact = (mean - np.array(STATISTICS.mean)) / np.array(STATISTICS.std)
  # Compiled apart, the encoder's sums of 9 x 8 terms, a dozen in a row, may differ in their order.
  np.testing.assert_allclose(latents, exact, atol=12 * 72 * EPS * np.abs(exact).max())


def test_statistics_cancel_between_encoding_and_decoding(plain, codec):
  expected = np.asarray(plain.decode(plain.encode(clip()), 3), np.int32)
  again = np.asarray(codec.decode(codec.encode(clip()), 3), np.int32)
  assert again.shape == clip().shape
  assert np.abs(again - expected).max() <= 1  # a rounding may fall on the other side of a half


def test_latents_of_the_data_itself_have_zero_mean_and_unit_deviation(params, plain):
  found = estimate_statistics([np.asarray(plain.encode(clip()))])
  latents = np.asarray(LatentCodec(MODEL, params, found).encode(clip())).reshape(-1, 4)
  np.testing.assert_allclose(latents.mean(0), 0, atol=1e-4)
  np.testing.assert_allclose(latents.std(0), 1, atol=1e-4)
