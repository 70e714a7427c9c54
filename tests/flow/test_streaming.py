"""A stream of windows is the whole, and holds no more of a long clip than of a short one."""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mgjax.core.errors import ConfigError, DataError
from mgjax.flow.frame_noise import frame_noise
from mgjax.flow.guidance import make_guided
from mgjax.flow.multidiffusion import SHAPES, multi_diffusion
from mgjax.flow.sample import sample
from mgjax.flow.schedules import linear_quadratic
from mgjax.flow.streaming import STREAMING_SOLVERS, TimeWindows, stream_windows
from mgjax.flow.windows import windows
from mgjax.models.backbone.transformer import Transformer
from mgjax.models.conditioning.byte_text import ByteText
from mgjax.models.conditioning.known_latents import KnownLatents
from mgjax.models.flow_model.model import FlowModel
from mgjax.parallel.mesh import make_mesh
from mgjax.parallel.rules import place_rows
from tests.random_parameters import random_parameters

EPS = float(np.finfo(np.float32).eps)
SIZE, OVERLAP, STEPS = 14, 4, 5
TIMES = linear_quadratic(STEPS, emulated=20)
# Of either way: some 10 roundings of numbers below 4 in a velocity, where the lengths of the steps
# sum to 1, and 2 in each of 2 x 5 additions to x. A difference grows by e at most: |dv/dx| <= 1.
TOLERANCE = 2 * (10 + 2 * 2 * STEPS) * 4 * EPS * math.e


def toy(batch):
  """A model that mixes the frames of a window and knows places, time and conditions."""

  def velocity(x, time):
    time = time.reshape(-1, 1, 1, 1, 1)
    places = jnp.arange(x.shape[1], dtype=x.dtype).reshape(1, -1, 1, 1, 1) / x.shape[1]
    before = jnp.concatenate([x[:, -1:], x[:, :-1]], axis=1)
    pull = batch['low'] * time + batch['text'].reshape(-1, 1, 1, 1, 1)
    return jnp.tanh(before - x) / 2 + places * jnp.cos(3 * time) + pull

  return velocity


ALONG = {'low': 3}
SHAPE = (2, 3, 1)


def low(total):
  places = np.arange(total * math.prod(SHAPE), dtype=np.float32)
  return np.sin(places).reshape(total, *SHAPE)


def text():
  return {'text': np.full((1, 1), 0.25, np.float32)}


def noise(start, stop):
  return frame_noise(3, np.zeros(1, int), start, stop, SHAPE)[0]


@functools.cache
def compiled():
  return jax.jit(lambda batch, x, time: toy(batch)(x, time))


def stream(
  total, velocity=None, *, size=SIZE, overlap=OVERLAP, shape='bartlett', rows=8, chunk=4, **options
):
  options = {'times': TIMES, 'noise': noise, 'constant': text()} | options
  velocity = compiled() if velocity is None else velocity
  whole = low(total)
  frames = ({'low': whole[start : start + chunk]} for start in range(0, len(whole), chunk))
  return stream_windows(velocity, frames, TimeWindows(size, overlap, shape, rows), **options)


@functools.cache
def whole(total, overlap=OVERLAP, solver='euler', shape='bartlett'):
  batch = {name: jnp.asarray(value) for name, value in (text() | {'low': low(total)[None]}).items()}
  wide = multi_diffusion(toy, (windows(total, SIZE, overlap),), along={'low': 1}, shape=shape)
  run = jax.jit(lambda x: sample(wide(batch), x, TIMES, solver))
  return np.asarray(run(noise(0, total)[None])[0])


@pytest.mark.parametrize(
  ('total', 'overlap', 'rows'),
  [
    *((total, OVERLAP, rows) for total in (1, 5, 14, 15, 28, 97) for rows in (1, 8)),
    *((45, overlap, 4) for overlap in (0, 1, 7, 10, 13)),
  ],
)
def test_a_stream_is_the_whole(total, overlap, rows):
  made = np.concatenate(list(stream(total, overlap=overlap, rows=rows)))
  np.testing.assert_allclose(made, whole(total, overlap), rtol=0, atol=TOLERANCE)


@pytest.mark.parametrize('solver', STREAMING_SOLVERS)
@pytest.mark.parametrize('shape', SHAPES)
def test_either_solver_and_either_window_give_the_whole(solver, shape):
  made = np.concatenate(list(stream(45, solver=solver, shape=shape)))
  expected = whole(45, solver=solver, shape=shape)
  np.testing.assert_allclose(made, expected, rtol=0, atol=TOLERANCE)
  if (solver, shape) != ('euler', 'bartlett'):  # the tolerance tells them apart
    assert np.abs(expected - whole(45)).max() > 10 * TOLERANCE


def test_neither_chunks_nor_rows_change_what_is_made():
  expected = np.concatenate(list(stream(45)))
  for chunk in (1, 7, 45):
    np.testing.assert_array_equal(np.concatenate(list(stream(45, chunk=chunk))), expected)
  for rows in (2, 5):  # another program, which may round the same velocity otherwise
    made = np.concatenate(list(stream(45, rows=rows)))
    np.testing.assert_allclose(made, expected, rtol=0, atol=TOLERANCE)


def test_the_stream_of_a_model_in_time_and_space_is_the_whole():
  backbone = Transformer(16, 1, 2, 32, (SIZE, 1, 1), (1, 2, 2), name='backbone')
  words = ByteText(16, width=8, depth=1, heads=2, length=5, name='text')
  model = FlowModel(backbone, (KnownLatents(16, name='context'), words))
  covers = (windows(25, SIZE, OVERLAP), windows(2, 2), windows(3, 2, 1))
  shape, rng = (2, 3, 2), np.random.default_rng(0)
  known = rng.normal(size=(25, *shape)).astype(np.float32)
  asked = {'text': np.arange(1, 6, dtype=np.int32)[None]}
  x = frame_noise(0, np.zeros(1, int), 0, 25, shape)
  given = {'context': known[None], **asked}
  window = {'context': known[None, :SIZE, :2, :2], **asked}
  inputs = (x[:, :SIZE, :2, :2], jnp.zeros(1), window, {})
  params = random_parameters(model.init, *inputs)

  def make_velocity(batch):
    predict = functools.partial(model.apply, {'params': params})
    return make_guided(predict, batch, (('text', 3.0),))

  along = {'context': 3}
  wide = multi_diffusion(make_velocity, covers, along=along)
  expected = jax.jit(lambda batch, x: sample(wide(batch), x, TIMES))(given, x)
  space = multi_diffusion(make_velocity, (windows(SIZE, SIZE), *covers[1:]), along=along)
  made = stream_windows(
    jax.jit(lambda batch, x, time: space(batch)(x, time)),
    ({'context': frame[None]} for frame in known),
    TimeWindows(SIZE, OVERLAP, rows=3),
    times=TIMES,
    noise=lambda start, stop: x[0, start:stop],
    constant=asked,
  )
  scale = float(np.abs(expected).max())
  # Some 400 roundings a layer, amplified by guidance, 3 + 2, in each of 5 steps.
  tolerance = STEPS * 5 * 400 * EPS * scale
  np.testing.assert_allclose(np.concatenate(list(made)), expected[0], rtol=0, atol=tolerance)


def still(batch, x, time):
  return np.zeros_like(x)


class Counted:
  """Conditions that count how many frames are pulled, and the most that are not yielded yet."""

  def __init__(self, total):
    self.total, self.pulled, self.made, self.most = total, 0, 0, 0

  def __iter__(self):
    for _ in range(self.total):
      self.pulled += 1
      self.most = max(self.most, self.pulled - self.made)
      yield {'low': np.zeros((1, *SHAPE), np.float32)}


def most_held(total, overlap, rows):
  frames = Counted(total)
  options = {'times': TIMES, 'noise': lambda start, stop: np.zeros((stop - start, *SHAPE))}
  for chunk in stream_windows(still, frames, TimeWindows(SIZE, overlap, rows=rows), **options):
    frames.made += len(chunk)
  assert frames.made == frames.pulled == total
  return frames.most


@pytest.mark.parametrize(('overlap', 'rows'), [(4, 1), (4, 8), (10, 4)])
def test_2000_frames_hold_no_more_than_200(overlap, rows):
  held = most_held(2000, overlap, rows)
  assert held <= most_held(200, overlap, rows)
  following = math.ceil(SIZE / (SIZE - overlap)) - 1
  assert held <= (following * STEPS + rows) * (SIZE - overlap) + 2 * SIZE


def test_rows_are_filled_and_noise_is_drawn_once():
  calls, drawn = [], []

  def velocity(batch, x, time):
    assert batch['low'].shape[:2] == x.shape[:2] == (8, SIZE)
    calls.append(time)
    return np.zeros_like(x)

  def draw(start, stop):
    drawn.extend(range(start, stop))
    return np.zeros((stop - start, *SHAPE))

  assert sum(map(len, stream(500, velocity, noise=draw))) == 500
  assert drawn == list(range(500))
  evaluations = len(windows(500, SIZE, OVERLAP).starts) * STEPS
  assert len(calls) * 8 <= evaluations + 8 * 2 * STEPS  # the last windows wait for each other
  assert len(set(calls[len(calls) // 2])) > 1  # rows are at times of their own


def test_a_stream_over_eight_devices_is_the_whole():
  @jax.jit
  def velocity(batch, x, time):
    return toy(jax.tree.map(place_rows, batch))(place_rows(x), place_rows(time))

  rows = []

  def counted(batch, x, time):
    rows.append(len(x))
    answer = velocity(batch, x, time)
    assert not answer.sharding.is_fully_replicated
    return answer

  with jax.set_mesh(make_mesh({'data': 2, 'fsdp': 4}, 'fsdp')):
    made = np.concatenate(list(stream(45, counted, rows=3)))
  assert set(rows) == {8}
  np.testing.assert_allclose(made, whole(45), rtol=0, atol=TOLERANCE)


def test_what_cannot_be_sampled_is_a_sentence():
  with pytest.raises(DataError, match='there is no frame to sample'):
    list(stream(0))
  uneven = [{'low': low(3), 'other': low(2)}]
  options = {'times': TIMES, 'noise': noise}
  with pytest.raises(DataError, match=r"\{'low': 3, 'other': 2\} frames"):
    list(stream_windows(still, uneven, TimeWindows(SIZE, OVERLAP), **options))
  with pytest.raises(ConfigError, match="with 'heun'; choose one of euler, midpoint"):
    stream(5, solver='heun')
  with pytest.raises(ConfigError, match="unknown window 'hann'"):
    stream(5, shape='hann')
  with pytest.raises(ConfigError, match='0 rows at a time'):
    stream(5, rows=0)
  with pytest.raises(ConfigError, match='expected a frame at least'):
    stream(5, overlap=SIZE)
