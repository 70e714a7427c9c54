"""Tiles: how they cover a video, how they are blended, and what a function over them equals."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mgjax.core.errors import ConfigError
from mgjax.models.tae.tiling import Tiling, over_tiles, regroup, stitch
from mgjax.parallel.mesh import make_mesh

EPS32 = float(np.finfo(np.float32).eps)


def counting(frames):
  """A video of one pixel whose frames are 1, 2, 3, ..."""
  return np.arange(1.0, frames + 1, dtype=np.float32).reshape(1, frames, 1, 1, 1)


def picture(rows, height, width):
  return jnp.asarray(np.random.default_rng(0).normal(size=(rows, 1, height, width, 1)), jnp.float32)


def test_the_reports_tiles_are_32_frames_of_which_16_are_shared():
  """Movie Gen §3.1.1, Fig. 6: of a 256-frame video, 8 tiles are encoded and 15 decoded."""
  tiling = Tiling()
  tiling.check((8, 8, 8))
  assert (tiling.frames, tiling.overlap) == (32, 16)
  encoded = list(regroup([counting(256)], 32))
  decoded = list(regroup([counting(32)], 32 // 8, 16 // 8))
  assert [len(tile[0]) for tile in encoded] == [32] * 8
  assert [tile.ravel().tolist() for tile in decoded] == [
    [start + 1, start + 2, start + 3, start + 4] for start in range(0, 30, 2)
  ]


@given(st.data())
def test_tiles_of_time_do_not_depend_on_the_chunks_that_a_video_comes_in(data):
  frames, length = data.draw(st.integers(1, 64)), data.draw(st.integers(1, 16))
  overlap = data.draw(st.integers(0, length // 2))
  video = counting(frames)
  places = sorted(data.draw(st.lists(st.integers(0, frames), max_size=8)))
  chunks = np.split(video, places, axis=1)  # some of them empty
  tiles = list(regroup(chunks, length, overlap))
  step = length - overlap
  count = 1 + max(0, -(-(frames - length) // step))
  expected = [video[:, step * i : step * i + length] for i in range(count)]
  assert len(tiles) == count
  for tile, each in zip(tiles, expected, strict=True):
    np.testing.assert_array_equal(tile, each)
  assert frames <= length or tiles[-1].shape[1] > overlap


def test_arrays_on_devices_are_cut_as_those_on_the_host():
  video = counting(23)
  on_device = [jnp.asarray(video[:, :9]), jnp.asarray(video[:, 9:])]
  for tile, other in zip(regroup(on_device, 8, 4), regroup([video], 8, 4), strict=True):
    assert isinstance(tile, jax.Array)
    np.testing.assert_array_equal(tile, other)


@given(st.integers(1, 64), st.sampled_from([(8, 4), (8, 3), (4, 0), (16, 8)]))
def test_the_blend_of_equal_frames_is_those_frames(frames, sizes):
  length, overlap = sizes
  video = counting(frames)
  pieces = list(stitch(map(jnp.asarray, regroup([video], length, overlap)), overlap))
  # (1 - w) x + w x: w, 1 - w, two products and a sum, each rounded once.
  np.testing.assert_allclose(np.concatenate(pieces, axis=1), video, rtol=3 * EPS32)
  assert max(piece.shape[1] for piece in pieces) <= length


def test_shared_frames_are_blended_by_a_linear_ramp_which_is_the_same_backwards():
  before, after = jnp.zeros((1, 8, 1, 1, 1)), jnp.ones((1, 8, 1, 1, 1))
  ramp = [0, 0, 0, 0, 1 / 8, 3 / 8, 5 / 8, 7 / 8, 1, 1, 1, 1]
  for tiles, exact in (((before, after), ramp), ((after, before), ramp[::-1])):
    blended = np.concatenate(list(stitch(tiles, 4)), axis=1)
    np.testing.assert_array_equal(blended.ravel(), exact)


@pytest.mark.parametrize(
  ('fields', 'message'),
  [
    ({'frames': 30}, r'tiling.frames=30 and tiling.overlap=16 do not fit .* multiples of 8'),
    ({'overlap': 12}, 'tiling.overlap=12'),
    ({'overlap': 24}, 'overlap is at most half of frames'),
    ({'frames': 0, 'overlap': 0}, 'frames = 0; expected a whole number from 1'),
    ({'size': 100}, 'tiling.size=100 and tiling.feather=64 do not fit .* multiples of 16'),
    ({'size': 112}, 'feather is at most half of size'),
  ],
)
def test_tiles_that_are_no_whole_latents_are_a_sentence(fields, message):
  with pytest.raises(ConfigError, match=message):
    Tiling(**fields).check((8, 8, 16))


def blurred(x):
  """The mean over 3 x 3 places, zeros beyond the edge: a receptive field of one place each way."""
  x = jnp.pad(x, ((0, 0), (0, 0), (1, 1), (1, 1), (0, 0)))
  rows = (x[:, :, :-2] + x[:, :, 1:-1] + x[:, :, 2:]) / 3
  return (rows[:, :, :, :-2] + rows[:, :, :, 1:-1] + rows[:, :, :, 2:]) / 3


def over(run, x, size, feather, steps=(1, 1)):
  """`run` over tiles of `size` pixels; a place of what it reads and writes is so many of them."""
  pixels = (x.shape[2] * steps[0], x.shape[3] * steps[0])
  tiling = Tiling(size=size, feather=feather)
  read, write = (tiling.covers(pixels, (step, step)) for step in steps)
  return jax.jit(lambda x: over_tiles(run, x, read, write))(x)


def test_a_frame_of_one_tile_is_the_function_itself():
  x = picture(2, 6, 8)
  seen = []
  for size in (None, 8, 100):
    tiling = Tiling(size=size, feather=4)
    cover = tiling.covers((6, 8), (1, 1))
    assert over_tiles(lambda x: seen.append(x) or x, x, cover, cover) is x
  assert all(each is x for each in seen) and len(seen) == 3


def test_a_function_of_single_places_is_the_same_in_tiles():
  x = picture(2, 14, 10)
  # The weights of four tiles, rounded to float32, as many products, and three sums.
  np.testing.assert_allclose(over(jnp.sin, x, 6, 2), jnp.sin(x), rtol=8 * EPS32, atol=8 * EPS32)


def test_tiles_are_of_what_is_read_and_pasted_into_what_is_written():
  def smaller(x):
    b, t, h, w, c = x.shape
    return x.reshape(b, t, h // 2, 2, w // 2, 2, c).mean((3, 5))

  def larger(x):
    return x.repeat(2, axis=2).repeat(2, axis=3)

  x = picture(1, 28, 20)  # below 4
  # Sums of four numbers in another order, weights and their sum as above.
  np.testing.assert_allclose(over(smaller, x, 12, 4, (1, 2)), smaller(x), atol=4 * 16 * EPS32)
  np.testing.assert_allclose(over(larger, x, 24, 8, (2, 1)), larger(x), atol=4 * 8 * EPS32)


@pytest.mark.parametrize(('size', 'feather'), [(8, 4), (9, 2)])
def test_tiles_are_the_whole_where_each_of_them_sees_its_receptive_field(size, feather):
  x = picture(1, 22, 17)
  same = np.ones((22, 17), bool)
  covers = Tiling(size=size, feather=feather).covers((22, 17), (1, 1))
  for axis, cover in enumerate(covers):
    for start, end in ((start, start + cover.size) for start in cover.starts):
      # One place at either end of a tile sees zeros where the frame goes on.
      cut = [place for place in (start, end - 1) if place not in (0, cover.length - 1)]
      same[(cut,) if axis == 0 else (slice(None), cut)] = False
  found, exact = over(blurred, x, size, feather), blurred(x)
  assert 0.3 < same.mean() < 0.9
  # Numbers below 2: six sums and two quotients each, then the weights as above.
  np.testing.assert_allclose(found[0, 0, same], exact[0, 0, same], atol=2 * 16 * EPS32)
  assert np.abs(found - exact)[0, 0, ~same].max() > 1e-2


@pytest.mark.parametrize(('rows', 'height', 'held'), [(1, 14, 1), (3, 6, 3), (8, 6, 1)])
def test_tiles_over_eight_devices_are_those_of_one(rows, height, held):
  x = picture(rows, height, 14)
  alone = over(blurred, x, 6, 2)
  on_each = []

  def run(x):
    def look(sharding):
      on_each.append((x.shape[0], *sharding.shard_shape(x.shape)[:1]))

    jax.debug.inspect_array_sharding(x, callback=look)
    return blurred(x)

  with jax.set_mesh(make_mesh({'data': 2, 'fsdp': 4})):
    shared = over(run, x, 6, 2)
  # Of a sum of at most four weighted tiles, the order alone may differ.
  np.testing.assert_allclose(shared, alone, atol=8 * EPS32)
  assert set(on_each) == {(8 * held, held)}
