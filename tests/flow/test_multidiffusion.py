"""Windows that agree: on models small enough that the answer is known."""

import functools
import itertools
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mgjax.core.errors import ConfigError
from mgjax.flow.guidance import make_guided
from mgjax.flow.multidiffusion import SHAPES, bartlett_window, multi_diffusion, window_weights
from mgjax.flow.sample import sample
from mgjax.flow.schedules import linear
from mgjax.flow.windows import windows
from mgjax.parallel.mesh import make_mesh

EPS = np.finfo(np.float32).eps
CHANNELS = 3
TOTAL, SIZE, OVERLAP = 50, 16, 6
ALONG = {'frame_features': 1}


def noise(total=TOTAL, seed=0):
  return jax.random.normal(jax.random.key(seed), (1, total, 1, 1, CHANNELS))


def guided(batch, scale=3.0):
  """A linear model that is pointwise in time: it knows a frame, its features and the text."""

  def predict(x, time, batch, drop):
    kept = jnp.where(drop.get('text', jnp.zeros(len(x), bool)), 0, batch['text'].sum(1))
    pull = batch['frame_features'][:, :, None, None, :] + kept.reshape(-1, 1, 1, 1, 1)
    return pull + batch.get('context', 0.0) - x * time.reshape(-1, 1, 1, 1, 1)

  return make_guided(predict, batch, (('text', scale),))


def generate(batch, noise, make_velocity):
  run = lambda noise: sample(make_velocity(batch), noise, linear(4), 'midpoint')  # noqa: E731
  return jax.jit(run)(noise)


@pytest.mark.parametrize('shape', SHAPES)
@pytest.mark.parametrize('total', [7, 16, 50, 51])
@pytest.mark.parametrize('overlap', [0, 1, 8, 15])
def test_weights_are_positive_and_sum_to_one(shape, total, overlap):
  cover = windows(total, SIZE, overlap)
  share = window_weights(cover, shape)
  together = np.zeros(total)
  for start, row in zip(cover.starts, share, strict=True):
    together[start : start + cover.size] += row
  assert (share > 0).all()
  np.testing.assert_allclose(together, 1, rtol=4 * np.finfo(float).eps)


def test_the_triangle_counts_the_middle_of_a_window_most():
  np.testing.assert_array_equal(bartlett_window(5), [0.5, 1.5, 2.5, 1.5, 0.5])
  cover = windows(12, 8, 4)
  first, second = window_weights(cover)
  # On the four shared places one window falls as the other rises, in equal steps.
  np.testing.assert_allclose(first[4:], [0.875, 0.625, 0.375, 0.125])
  np.testing.assert_allclose(second[:4], [0.125, 0.375, 0.625, 0.875])
  assert (window_weights(cover, 'uniform')[0][4:] == 0.5).all()
  with pytest.raises(ConfigError, match="unknown window 'hann'; choose one of bartlett, uniform"):
    window_weights(cover, 'hann')


@pytest.mark.parametrize('shape', SHAPES)
@pytest.mark.parametrize(
  ('rows', 'scale'), [(1, 3.0), (3, 3.0), (8, 3.0), (100, 3.0), (3, (3.0, (0.2, 0.7)))]
)
def test_multi_diffusion_of_a_model_that_is_pointwise_in_time_is_the_whole(shape, rows, scale):
  velocity = functools.partial(guided, scale=scale)
  features = np.sin(np.arange(TOTAL, dtype=np.float32))[None, :, None]
  batch = {'text': np.full((1, 2), 0.5, np.float32), 'frame_features': features}
  cover = windows(TOTAL, SIZE, OVERLAP)
  wide = multi_diffusion(velocity, (cover,), along=ALONG, shape=shape, rows=rows)
  start = jnp.concatenate([noise(), noise(seed=1)])
  two = {name: np.concatenate([value, value]) for name, value in batch.items()}
  # Weights that sum to 1 up to a rounding each, in 8 evaluations of numbers below 10.
  np.testing.assert_allclose(
    generate(two, start, wide), generate(two, start, velocity), atol=8 * 4 * 10 * EPS, rtol=0
  )


def test_multi_diffusion_costs_the_memory_of_a_group_and_not_of_all_windows():
  width = 64

  def heavy(batch):
    def velocity(x, time):
      # (b t t width): what a window costs grows with its rows, and is much beside its latents.
      inner = jnp.sin(
        x[:, :, None, 0, 0, :1] * x[:, None, :, 0, 0, :1] * jnp.ones((1, 1, 1, width))
      )
      return x + jnp.tanh(inner * inner[::-1]).sum((2, 3)).reshape(*x.shape[:2], 1, 1, 1)

    return velocity

  def needs(total, rows):
    cover = windows(total, 32, 16)
    wide = multi_diffusion(heavy, (cover,), along=ALONG, rows=rows)
    compiled = jax.jit(wide({})).lower(noise(total), jnp.zeros(1)).compile()
    return compiled.memory_analysis().temp_size_in_bytes

  short, long = needs(64, 2), needs(2048, 2)
  latents = 2048 * CHANNELS * 4
  assert long < short + 8 * latents  # a few copies of the latents, and no window more
  assert needs(2048, 16) > 3 * long  # what counts is the group


SPACE = (windows(20, 14, 4), windows(7, 4, 2), windows(6, 3, 1))


def corner_of_window(batch):
  """A model that says where in its window a place is, and what it is shown there."""

  def velocity(x, time):
    places = [jnp.arange(size, dtype=x.dtype) for size in x.shape[1:4]]
    sums = sum(jnp.meshgrid(*places, indexing='ij'))[None, ..., None]
    return (
      sums * batch['low']
      + batch['frame_features'][:, :, None, None, :]
      + x.mean((1, 2, 3, 4))[:, None, None, None, None] * time.reshape(-1, 1, 1, 1, 1)
    )

  return velocity


def place(count=2):
  rng, lengths = np.random.default_rng(0), [cover.length for cover in SPACE]
  x = rng.normal(size=(count, *lengths, CHANNELS)).astype(np.float32)
  low = rng.normal(size=x.shape).astype(np.float32)
  features = rng.normal(size=(count, lengths[0], CHANNELS)).astype(np.float32)
  return x, {'low': low, 'frame_features': features}


def over_space(*arguments, **options):
  compiled = lower_over_space(*arguments, **options).compile()
  x, batch = place(options.get('count', 2))
  return np.asarray(compiled(batch, x))


def lower_over_space(rows, make_velocity=corner_of_window, covers=SPACE, count=2, **options):
  x, batch = place(count)
  along = {'low': 3, 'frame_features': 1}
  wide = multi_diffusion(make_velocity, covers, along=along, rows=rows, **options)
  time = jnp.linspace(0.25, 0.75, count)
  return jax.jit(lambda batch, x: wide(batch)(x, time)).lower(batch, x)


# Up to 8 windows at a place, each a number below 40 with 3 weights; means of 168 numbers.
OVER_SPACE = (8 * 4 + 168) * 40 * EPS


@pytest.mark.parametrize('shape', SHAPES)
def test_windows_of_time_and_space_are_weighted_by_the_product_of_their_axes(shape):
  x, batch = place()
  expected, weight = np.zeros(x.shape), np.zeros(x.shape[1:4])
  times = np.array([0.25, 0.75])
  each = [zip(cover.starts, window_weights(cover, shape), strict=True) for cover in SPACE]
  for window in itertools.product(*each):
    starts, shares = zip(*window, strict=True)
    share = np.einsum('t,h,w->thw', *shares)
    where = tuple(slice(s, s + len(u)) for s, u in zip(starts, shares, strict=True))
    sums = np.indices(share.shape).sum(0)[None, ..., None]
    mean = x[:, *where].mean((1, 2, 3, 4)) * times
    said = sums * batch['low'][:, *where]
    said += batch['frame_features'][:, where[0], None, None]
    expected[:, *where] += share[..., None] * (said + mean[:, None, None, None, None])
    weight[where] += share
  np.testing.assert_allclose(weight, 1, rtol=16 * np.finfo(float).eps)
  np.testing.assert_allclose(over_space(8, shape=shape), expected, rtol=0, atol=OVER_SPACE)


@pytest.mark.parametrize('rows', [1, 2, 7, 100])
def test_the_rows_at_a_time_do_not_matter(rows):
  np.testing.assert_allclose(over_space(rows), over_space(8), rtol=0, atol=OVER_SPACE)


def test_one_window_is_the_model_itself():
  x, batch = place()
  whole = jax.jit(lambda batch, x: corner_of_window(batch)(x, jnp.array([0.25, 0.75])))(batch, x)
  covers = tuple(windows(cover.length, 2 * cover.length, 1) for cover in SPACE)
  np.testing.assert_allclose(over_space(8, covers=covers), whole, rtol=0, atol=OVER_SPACE)


def sine(batch):
  velocity = corner_of_window(batch)
  return lambda x, time: jnp.sin(velocity(x, time))


@pytest.mark.parametrize(('count', 'rows'), [(1, 8), (2, 8), (3, 24)])
def test_windows_over_eight_devices_say_the_same(count, rows):
  expected = over_space(4, sine, count=count)
  with jax.set_mesh(make_mesh({'data': 2, 'fsdp': 4}, 'fsdp')):
    found = over_space(4, sine, count=count)
    program = lower_over_space(4, sine, count=count).compile().as_text()
  # The rows are filled up so that they divide, and every device has its share of them.
  sines = set(re.findall(r'f32\[(\d+),14,4,3,3\]\S* sine\(', program))
  assert sines == {str(rows // 8)}
  np.testing.assert_allclose(found, expected, rtol=0, atol=OVER_SPACE)


def test_what_does_not_fit_is_a_sentence():
  with pytest.raises(ConfigError, match='0 rows at a time'):
    over_space(0)
  with pytest.raises(ConfigError, match="3 axes of 'low' are to be cut; expected 1 to 2"):
    over_space(8, covers=SPACE[:2])
  with pytest.raises(ConfigError, match=r'the windows cover \(20, 7, 9\) of it'):
    over_space(8, covers=(*SPACE[:2], windows(9, 3, 1)))
