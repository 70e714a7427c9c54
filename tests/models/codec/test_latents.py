"""Sound to normalised latents and back: the codec's mean and decoder, in pieces as in one."""

import jax
import numpy as np
import pytest

from mgjax.models.codec.latents import AudioCodec
from mgjax.models.codec.model import CODEC_RATE, Codec
from mgjax.models.tae.latents import Statistics
from mgjax.sections.codec.section import codec_inputs
from tests.random_parameters import random_parameters

EPS = np.finfo(np.float32).eps
MODEL = Codec(channels=2, width=2, strides=(2,), latent_channels=3, decoder_width=4, patch=2)
STATISTICS = Statistics((0.5, -1.0, 0.0), (2.0, 0.25, 1.0))


@pytest.fixture(scope='module')
def codec():
  return AudioCodec(MODEL, random_parameters(MODEL.init, *codec_inputs(MODEL)), STATISTICS)


def sound(samples=41):
  return np.random.default_rng(0).uniform(-1, 1, (2, samples, 2)).astype(np.float32)


def test_latents_are_the_normalised_means(codec):
  variables = {'params': codec.params}
  plain = jax.jit(lambda x: MODEL.apply(variables, x, method='encode').mean)(sound())
  found = codec.encode(sound())
  assert found.shape == (2, 11, 3)
  exact = (np.asarray(plain, np.float64) - STATISTICS.mean) / STATISTICS.std
  np.testing.assert_allclose(found, exact, rtol=0, atol=50 * EPS * np.abs(exact).max())
  decoded = jax.jit(lambda z: MODEL.apply(variables, z, 41, method='decode'))(plain)
  np.testing.assert_allclose(codec.decode(found, 41), decoded, atol=1e-5)


def test_streams_are_the_whole(codec):
  whole, x = codec.encode(sound()), sound()
  pieces = list(codec.encode_stream([x[:, :17], x[:, 17:20], x[:, 20:]], step=4))
  # As tests/models/codec/test_streaming.py bounds a codec of more layers; normalised by 1 / 4.
  close = {'rtol': 0, 'atol': 4 * 48 * EPS * np.abs(whole).max()}
  np.testing.assert_allclose(np.concatenate(pieces, axis=1), whole, **close)
  again = list(codec.decode_stream([whole[:, :3], whole[:, 3:]], samples=41, step=4))
  np.testing.assert_allclose(np.concatenate(again, axis=1), codec.decode(whole, 41), **close)


def test_a_codec_says_what_it_is(codec):
  assert (codec.rate, codec.compression) == (CODEC_RATE, 4)
  assert codec.statistics == STATISTICS
