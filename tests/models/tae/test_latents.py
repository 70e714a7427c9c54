"""Bytes, units, statistics and the codec that joins them, in tiles."""

import gc
import logging
import weakref

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mgjax.core.errors import ConfigError, DataError
from mgjax.lab.benchmarks.timing import counted_compilations
from mgjax.models.tae.autoencoder import Autoencoder
from mgjax.models.tae.latents import LatentCodec, Statistics, estimate_statistics, to_bytes, to_unit
from mgjax.models.tae.tiling import Tiling
from mgjax.parallel.mesh import make_mesh
from tests.random_parameters import random_parameters

EPS = np.finfo(np.float32).eps
MODEL = Autoencoder(latent_channels=4, widths=(8, 8), strides=((2, 2, 2),), blocks=0, groups=4)
STATISTICS = Statistics((0.5, -1.0, 0.0, 2.0), (0.5, 1.0, 2.0, 4.0))


def movie(rows, frames, height=8, width=8):
  shape = (rows, frames, height, width, 3)
  return np.random.default_rng(1).integers(0, 256, shape).astype(np.uint8)


@pytest.fixture(scope='module')
def params():
  return random_parameters(MODEL.init, to_unit(jnp.asarray(movie(2, 3))), jax.random.key(0))


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


def test_statistics_are_numpys_of_some_latents_and_no_deviation_is_zero():
  rng = np.random.default_rng(0)
  arrays = [rng.normal(3, 2, (n, 2, 3, 3, 4)).astype(np.float32) for n in (1, 5, 2)]
  found = estimate_statistics(arrays)
  rows = np.concatenate(arrays).reshape(-1, 4).astype(np.float64)
  np.testing.assert_allclose(found.mean, rows.mean(0), rtol=1e-12)
  np.testing.assert_allclose(found.std, rows.std(0), rtol=1e-12)
  constant = estimate_statistics([np.full((1, 1, 2, 2, 1), 7.0)])
  assert constant.mean == (7.0,) and constant.std[0] > 0
  with pytest.raises(ValueError, match='no latents'):
    estimate_statistics([])


@pytest.mark.parametrize(
  'values',
  [
    7,
    [],
    {},
    {'mean': [0.0]},
    {'mean': [0.0], 'std': [0.0]},
    {'mean': [0.0], 'std': [1.0, 1.0]},
    {'mean': [float('nan')], 'std': [1.0]},
    {'mean': [0.0], 'std': [float('inf')]},
    {'mean': [10**400], 'std': [1]},
    {'mean': [None], 'std': [1]},
    {'mean': [True], 'std': [1]},
    {'mean': ['0'], 'std': ['1']},
    {'mean': '0', 'std': '1'},
    {'mean': [[0]], 'std': [[1]]},
    {'mean': [], 'std': []},
    {'mean': [0], 'std': [-1]},
  ],
)
def test_statistics_from_a_file_are_finite_or_a_sentence(values):
  with pytest.raises(ConfigError, match=r'statistics of the latents are .*; expected as many m'):
    Statistics.from_dict(values)
  with pytest.raises(ConfigError, match='expected 2 means and deviations'):
    Statistics.from_dict({'mean': [0], 'std': [1]}, 2)


def test_statistics_cancel_between_encoding_and_decoding(plain, codec):
  video = movie(2, 3)
  expected = np.asarray(plain.decode(plain.encode(video), 3), np.int32)
  again = np.asarray(codec.decode(codec.encode(video), 3), np.int32)
  assert again.shape == video.shape
  assert np.abs(again - expected).max() <= 1  # a rounding may fall on the other side of a half


IN_TIME = Tiling(frames=8, overlap=4)  # 4 latents, of which 2 are shared
IN_SPACE = Tiling(frames=8, overlap=4, size=8, feather=4)
# Two dozen convolutions of at most 9 x 8 terms in a row, between values that norms keep near 1.
TOLERANCE = 24 * 72 * EPS


@pytest.fixture(scope='module')
def tiled(params):
  return LatentCodec(MODEL, params, STATISTICS, IN_TIME)


@pytest.fixture(scope='module')
def quilted(params):
  return LatentCodec(MODEL, params, STATISTICS, IN_SPACE)


def joined(pieces):
  return np.concatenate([np.asarray(piece) for piece in pieces], axis=1)


@pytest.fixture(scope='module')
def pixels(codec):
  """What one tile of time becomes, in float64 before it is rounded to bytes."""
  decode = jax.jit(codec.decode_tile)
  return lambda latents: np.asarray(decode(codec.params, latents), np.float64)


def as_bytes(pixels):
  return np.clip(np.round((pixels + 1) * 127.5), 0, 255).astype(np.int32)


def test_a_video_of_one_tile_is_what_the_model_makes_of_it(params, tiled, quilted):
  moments = (STATISTICS.mean, STATISTICS.std)
  mean, std = (np.array(x, np.float32).reshape(1, 1, 1, 1, 4) for x in moments)

  @jax.jit
  def encode(video):
    return (MODEL.apply({'params': params}, to_unit(video), method='encode').mean - mean) / std

  @jax.jit
  def decode(latents):
    return to_bytes(MODEL.apply({'params': params}, latents * std + mean, method='decode'))

  video = movie(1, 8)
  latents = encode(video)
  for codec in (tiled, quilted):
    np.testing.assert_array_equal(codec.encode(video), latents)
    np.testing.assert_array_equal(codec.decode(latents, 8), decode(latents))


def test_tiles_are_encoded_by_themselves(tiled):
  """Movie Gen §3.1.1: the encoder's tiles do not overlap."""
  video = movie(1, 21)
  alone = [tiled.encode(video[:, start : start + 8]) for start in (0, 8, 16)]
  np.testing.assert_array_equal(tiled.encode(video), joined(alone))


def test_decoded_tiles_share_frames_that_are_blended_by_a_linear_ramp(tiled, pixels):
  """Movie Gen §3.1.1, Fig. 6, here with half the frames and half the latents."""
  latents = np.asarray(tiled.encode(movie(1, 21)))  # 11
  exact, weights = np.zeros((1, 22, 8, 8, 3)), np.zeros(22)
  for start in (0, 2, 4, 6, 8):
    frames = pixels(latents[:, start : start + 4])
    window = np.ones(frames.shape[1])
    if start > 0:
      window[:4] = (np.arange(4) + 0.5) / 4
    if start < 8:
      window[-4:] = 1 - (np.arange(4) + 0.5) / 4
    span = slice(2 * start, 2 * start + len(window))
    exact[:, span] += window[:, None, None, None] * frames
    weights[span] += window
  assert (weights == 1).all()
  found = np.asarray(tiled.decode(latents, 21), np.int32)
  assert found.shape == (1, 21, 8, 8, 3)
  assert np.abs(found - as_bytes(exact[:, :21])).max() <= 1  # roundings beside a half


def test_tiles_of_space_are_blended_both_ways(plain, quilted, pixels):
  video = movie(1, 3, 8, 14)
  starts, step = (0, 4, 6), 2
  covers = IN_SPACE.covers((8, 14), (step, step))
  exact = np.zeros((1, 2, 4, 7, 4))
  for start, window in zip(starts, covers[1].windows, strict=True):
    tile = np.asarray(plain.encode(video[:, :, :, start : start + 8]), np.float64)
    exact[:, :, :, start // 2 : start // 2 + 4] += window[:, None] * tile
  exact = (exact - np.array(STATISTICS.mean)) / np.array(STATISTICS.std)
  latents = np.asarray(quilted.encode(video))
  np.testing.assert_allclose(latents, exact, atol=TOLERANCE * np.abs(exact).max())

  exact = np.zeros((1, 4, 8, 14, 3))
  for start, window in zip(starts, IN_SPACE.covers((8, 14), (1, 1))[1].windows, strict=True):
    tile = pixels(latents[:, :, :, start // 2 : start // 2 + 4])
    exact[:, :, :, start : start + 8] += window[:, None] * tile
  found = np.asarray(quilted.decode(latents, 3), np.int32)
  assert np.abs(found - as_bytes(exact[:, :3])).max() <= 1


def test_videos_of_any_length_come_back_as_long(tiled):
  for frames in (1, 2, 5, 8, 9, 13, 21):
    latents = tiled.encode(movie(1, frames))
    assert latents.shape == (1, *tiled.latent_shape((frames, 8, 8)))
    assert tiled.decode(latents, frames).shape == (1, frames, 8, 8, 3)
  assert tiled.decode(latents, 6).shape == (1, 6, 8, 8, 3)  # the first ones


@pytest.mark.parametrize('places', [(), (8, 16), (1, 2, 3), (7, 7, 20), (3, 11, 12, 18)])
def test_a_stream_is_the_whole_in_whatever_chunks_it_comes(tiled, places):
  video = movie(1, 21)
  whole = tiled.encode(video)
  latents = list(tiled.encode_stream(np.split(video, places, axis=1)))
  assert [piece.shape[1] for piece in latents] == [4, 4, 3]
  np.testing.assert_array_equal(joined(latents), whole)
  chunks = np.split(np.asarray(whole), np.array(places) // 2, axis=1)
  for given in (chunks, map(jnp.asarray, chunks), latents):
    again = list(tiled.decode_stream(given, 21))
    assert [piece.shape[1] for piece in again] == [4, 4, 4, 4, 2, 3]
    np.testing.assert_array_equal(joined(again), tiled.decode(whole, 21))


def reconstruct(codec, rounds):
  """Streams 16 frames a round; the most bytes on devices, and the most chunks on the host."""
  alive, most_bytes, most_chunks = [], 0, 0

  def watched():
    for frames in (3, 13) * rounds:  # every other tile is made of two chunks
      chunk = movie(1, frames)
      alive.append(weakref.ref(chunk))
      yield chunk
      del chunk

  seen = 0
  for piece in codec.decode_stream(codec.encode_stream(watched()), 16 * rounds):
    seen += piece.shape[1]
    most_bytes = max(most_bytes, sum(array.nbytes for array in jax.live_arrays()))
    most_chunks = max(most_chunks, sum(each() is not None for each in alive))
  assert seen == 16 * rounds
  return most_bytes, most_chunks


def test_memory_does_not_grow_with_the_length_and_nothing_is_compiled_again(tiled):
  gc.collect()
  few = reconstruct(tiled, 4)  # 8 tiles
  with counted_compilations() as compilations:
    many = reconstruct(tiled, 32)
  assert many[0] == few[0]
  assert max(few[1], many[1]) <= 4  # how soon the runtime lets go of one is its own affair
  assert not compilations


def test_sizes_that_do_not_divide_are_filled_up_aloud_and_cut_off_again(tiled, caplog):
  video = movie(1, 8, 7, 5)
  with caplog.at_level(logging.WARNING, 'mgjax'):
    latents = [tiled.encode(each) for each in (video, video)]
  assert [record.getMessage() for record in caplog.records] == [
    'videos of 7 x 5 are filled up to 8 x 6 pixels, which the autoencoder compresses; decode with '
    'size=(7, 5) to cut that off again'
  ]
  filled = np.pad(video, ((0, 0), (0, 0), (0, 1), (0, 1), (0, 0)), mode='edge')
  np.testing.assert_allclose(latents[0], tiled.encode(filled), atol=TOLERANCE)
  assert latents[0].shape == (1, *tiled.latent_shape((8, 7, 5)))
  whole = np.asarray(tiled.decode(latents[0], 8), np.int32)
  assert whole.shape == filled.shape
  found = np.asarray(tiled.decode(latents[0], 8, size=(7, 5)), np.int32)
  assert found.shape == video.shape
  assert np.abs(found - whole[:, :, :7, :5]).max() <= 1
  with pytest.raises(DataError, match='stand for 8 x 6 pixels cannot become 7 x 8; expected'):
    tiled.decode(latents[0], 8, size=(7, 8))


@pytest.mark.parametrize('mesh', [{'data': 8}, {'data': 2, 'context': 4}], ids=str)
@pytest.mark.parametrize('rows', [1, 2])
def test_tiles_of_time_over_eight_devices_are_those_of_one(tiled, mesh, rows):
  # More than one group for eight devices, and a shorter tile at the end.
  latents = np.asarray(tiled.encode(movie(rows, 48)))[:, :-1]
  alone = np.asarray(tiled.decode(latents))
  with jax.set_mesh(make_mesh(mesh)):
    shared = np.asarray(tiled.decode(latents))
    chunks = [latents[:, :3], latents[:, 3:]]
    pieces = [np.asarray(piece) for piece in tiled.decode_stream(chunks)]
  # Sums may be taken in another order, so that what lies between two bytes goes to either.
  assert np.abs(shared.astype(np.int32) - alone).max() <= 1
  assert (shared == alone).mean() > 0.999
  np.testing.assert_array_equal(np.concatenate(pieces, axis=1), shared)
  assert len(pieces) > 8


def test_the_next_tile_is_begun_before_a_piece_is_handed_over(tiled, monkeypatch):
  latents, decode, begun = np.asarray(tiled.encode(movie(1, 24))), tiled._decode, []
  monkeypatch.setattr(tiled, '_decode', lambda *a, **k: begun.append(1) or decode(*a, **k))
  seen = [len(begun) for _ in tiled.decode_stream([latents])]
  # Two are begun when the first piece comes; the last piece is what the last tile left over.
  assert seen == [*range(2, len(begun) + 1), len(begun), len(begun)]


LATENTS = np.zeros((1, 2, 4, 4, 4), np.float32)
HOLE = LATENTS.copy()
HOLE[0, 1, 2, 3, 0] = np.nan
