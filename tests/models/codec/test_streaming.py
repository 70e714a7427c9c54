"""Sound in pieces is sound as a whole: what results see, the joints, endless streams."""

import functools
import itertools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mgjax.models.codec.model import Codec
from mgjax.models.codec.streaming import decode_stream, decoder_reach, encode_stream, encoder_reach
from tests.random_parameters import random_parameters

PUBLISHED = Codec(width=1, latent_channels=1, decoder_width=16)
ONE = Codec(width=2, strides=(12,), latent_channels=3, decoder_width=4)
TWO = Codec(channels=2, width=2, strides=(2, 4), latent_channels=3, decoder_width=8)
FOLDED = TWO.clone(strides=(2, 2), patch=2)
# The same sums, whose terms a CPU may add in another order for another length: 7 x 8 terms at most,
# in some 40 layers, as a random walk, 48 eps of the largest number.
CLOSE = 48 * np.finfo(np.float32).eps


@functools.cache
def parameters(codec):
  sound = jnp.zeros((1, codec.compression, codec.channels))
  params = nn.unbox(random_parameters(codec.init, sound, jax.random.key(0)))

  def tame(path, leaf):  # so that nothing grows from layer to layer
    return {'scale': leaf / 2, 'alpha': 1 + leaf}.get(path[-1].key, leaf)

  return jax.tree_util.tree_map_with_path(tame, params)


def apply(codec, method, x, *args):
  run = functools.partial(codec.apply, method=method)
  return jax.jit(run, static_argnums=2)({'params': parameters(codec)}, x, *args)


def noise(rows, length, channels):
  return np.random.default_rng(0).uniform(-1, 1, (rows, length, channels)).astype(np.float32)


def cut(x, lengths):
  """Cuts time into chunks of these lengths, over and over."""
  start = 0
  for length in itertools.cycle(lengths):
    if start >= x.shape[1]:
      return
    yield x[:, start : start + length]
    start += length


def close(y, exact):
  np.testing.assert_allclose(y, exact, rtol=0, atol=CLOSE * np.abs(exact).max())


def seen(codec, method, x, places, own):
  """Whether results of `own` change with each of `places`, told by a number that is none."""
  x = np.repeat(x, len(places), axis=0)
  x[range(len(places)), places] = np.nan
  y = apply(codec, method, x)
  y = y.mean if method == 'encode' else y
  return np.isnan(y[:, own]).any(axis=(1, 2)).tolist()


def test_reach_is_what_results_see_and_not_a_sample_more():
  codec, size = PUBLISHED, PUBLISHED.compression
  before, after = encoder_reach(codec.strides)
  own = 1 + before // size
  places = [own * size - before - 1, own * size - before]
  places += [(own + 1) * size - 1 + after, (own + 1) * size + after]
  sound = noise(1, (own + 2 + after // size) * size, codec.channels)
  assert seen(codec, 'encode', sound, places, slice(own, own + 1)) == [False, True, True, False]

  before, after = decoder_reach(codec.strides)
  own = before + 1
  places = [own - before - 1, own - before, own + after, own + after + 1]
  latents = noise(1, own + after + 2, codec.latent_channels)
  samples = slice(own * size, (own + 1) * size)
  assert seen(codec, 'decode', latents, places, samples) == [False, True, True, False]


def test_published_codec_sees_a_fifth_of_a_second():
  assert encoder_reach(Codec().strides) == (9953, 9953)  # 207 ms of 48,000 samples a second
  assert decoder_reach(Codec().strides) == (8, 8)  # 320 ms of 25 latents a second


# Steps shorter and longer than what a latent sees; a stream shorter than one step; a rest of 5.
@pytest.mark.parametrize(
  ('codec', 'step', 'samples', 'lengths'),
  [
    (ONE, 3, 12 * 20 - 5, (7, 50, 1)),
    (ONE, 30, 12 * 4 - 5, (11,)),
    pytest.param(TWO, 20, 8 * 70 - 5, (300, 3), marks=pytest.mark.slow),
    (FOLDED, 20, 8 * 70 - 5, (300, 3)),
  ],
  ids=['short steps', 'one step', 'two levels', 'two levels and patches'],
)
def test_encoding_in_pieces_is_encoding_the_whole(codec, step, samples, lengths):
  sound = noise(2, samples, codec.channels)
  whole = apply(codec, 'encode', sound)
  pieces = list(encode_stream(codec, parameters(codec), cut(sound, lengths), step))
  assert all(piece.mean.shape[1] == step for piece in pieces[:-1])
  assert len(pieces) > 1 or whole.mean.shape[1] < step
  for name in ('mean', 'scale'):
    joined = np.concatenate([getattr(piece, name) for piece in pieces], axis=1)
    close(joined, getattr(whole, name))


@pytest.mark.parametrize(
  ('codec', 'step', 'count', 'samples', 'lengths'),
  [
    (ONE, 4, 30, None, (5, 1)),
    (ONE, 40, 3, 29, (1,)),
    pytest.param(TWO, 30, 80, 70 * 8 - 3, (13,), marks=pytest.mark.slow),
    (FOLDED, 30, 80, 70 * 8 - 3, (13,)),
  ],
  ids=['short steps', 'one step', 'two levels', 'two levels and patches'],
)
def test_decoding_in_pieces_is_decoding_the_whole(codec, step, count, samples, lengths):
  latents = noise(2, count, codec.latent_channels)
  whole = apply(codec, 'decode', latents, samples)
  pieces = list(decode_stream(codec, parameters(codec), cut(latents, lengths), samples, step))
  assert all(piece.shape[1] == step * codec.compression for piece in pieces[:-1])
  close(np.concatenate(pieces, axis=1), whole)


def test_what_is_held_does_not_grow_with_the_stream():
  read = []

  def endless():
    while True:
      read.append(ONE.compression)
      yield noise(1, ONE.compression, 1)

  step, ahead = 5, -(-encoder_reach(ONE.strides)[1] // ONE.compression)
  stream = encode_stream(ONE, parameters(ONE), endless(), step)
  for given in range(1, 12):
    assert next(stream).mean.shape == (1, step, 3)
    assert len(read) == given * step + ahead  # latents whose sound has been asked for
