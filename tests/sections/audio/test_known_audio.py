"""What is given of a soundtrack is known to the model, and stays as it is for the listener."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mgjax.core.errors import ConfigError, DataError
from mgjax.models.codec.latents import AudioCodec
from mgjax.models.codec.model import Codec
from mgjax.models.tae.latents import Statistics
from mgjax.sections.audio.known_audio import KnownAudio
from tests.random_parameters import random_parameters

RATE, STEP = 1000, 40  # 25 latents a second
SECONDS = 2.0


@pytest.fixture(scope='module')
def codec():
  model = Codec(width=2, strides=(4, 10), latent_channels=3, decoder_width=8)
  key, silence = jax.random.key(0), jnp.zeros((1, STEP, 1))
  params = random_parameters(model.init, silence, key)
  return AudioCodec(model, params, Statistics((0.1, 0.2, 0.3), (1.0, 2.0, 3.0)), RATE)


def sound(seconds=SECONDS, seed=0):
  size = (round(seconds * RATE), 1)
  return np.random.default_rng(seed).uniform(-0.5, 0.5, size).astype(np.float32)


def chunked(array, size=333):
  return lambda: (array[begin : begin + size] for begin in range(0, len(array), size))


def test_its_latents_are_those_of_the_codec(codec):
  given = KnownAudio(codec, chunked(sound()), SECONDS)
  latents, known = given.window(0, 50)
  whole = np.asarray(codec.encode(sound()[None]))[0]
  # The codec in pieces adds up in other orders.
  np.testing.assert_allclose(latents[:, 0, 0], whole, atol=1e-5)
  assert known.all() and known.shape == (50,)
  np.testing.assert_array_equal(given.window(20, 30)[0], latents[20:30])


@pytest.mark.parametrize(
  ('length', 'spans', 'kept'),
  [
    (1.0, None, [(0, 25)]),
    (1.01, None, [(0, 25)]),  # the last latent is not given altogether
    (3.0, None, [(0, 50)]),
    (2.0, [(0.5, 1.0)], [(13, 25)]),  # 0.5 s is in the middle of a latent
    (2.0, [(0, 0.4), (1.6, 9)], [(0, 10), (40, 50)]),
    (1.0, [(0, 0.4), (0.8, 2)], [(0, 10), (20, 25)]),
  ],
)
def test_known_is_what_is_given_altogether_and_kept(codec, length, spans, kept):
  given = KnownAudio(codec, chunked(sound(length)), SECONDS, spans)
  expected = np.zeros(50, bool)
  for begin, end in kept:
    expected[begin:end] = True
  np.testing.assert_array_equal(given.known, expected)


def test_a_soundtrack_that_ends_within_a_latent_is_known_to_its_end(codec):
  given = KnownAudio(codec, chunked(sound(1.99)), 1.99)
  assert given.known.shape == (50,) and given.known.all()
  assert not KnownAudio(codec, chunked(sound(1.98)), 1.99).known[-1]


@pytest.mark.parametrize('size', [40, 700, 5000])
def test_given_samples_stay_and_others_are_made(codec, size):
  given = KnownAudio(codec, chunked(sound()), SECONDS, [(0, 0.4), (0.8, 1.2)])
  made = sound(seed=1)
  whole = np.concatenate(list(given.splice(chunked(made, size)())))
  assert whole.shape == made.shape
  fade = STEP
  for begin, end in ((0, 400 - fade), (800 + fade, 1200 - fade)):
    np.testing.assert_array_equal(whole[begin:end], sound()[begin:end])
  for begin, end in ((400, 800), (1200, 2000)):
    np.testing.assert_array_equal(whole[begin:end], made[begin:end])
  # Between, it is neither all one nor all the other, and lies between them.
  low, high = np.minimum(sound(), made), np.maximum(sound(), made)
  assert (whole >= low - 1e-6).all() and (whole <= high + 1e-6).all()
  share = (whole[360:400, 0] - made[360:400, 0]) / (sound()[360:400, 0] - made[360:400, 0])
  np.testing.assert_allclose(share, 1 - (np.arange(40) + 0.5) / 40, atol=0.05)


def test_what_cannot_be_gone_on_with_is_refused(codec):
  broken = sound()
  broken[700] = np.nan
  for array, spans, error, said in (
    (broken, None, DataError, 'samples that are no numbers'),
    (sound(0.02), None, ConfigError, 'nothing of the 0.02 s'),
    (sound(), [(1.0, 0.5)], ConfigError, '1-0.5 s is no stretch'),
    (sound(), [(5.0, 6.0)], ConfigError, 'nothing of the 2 s'),
    (sound()[:0], None, DataError, 'empty'),
  ):
    with pytest.raises(error, match=said):
      KnownAudio(codec, chunked(array), SECONDS, spans)
