"""Long sound is windows that agree: checked on models small enough that the answer is known."""

import functools

import jax
import jax.numpy as jnp
import numpy as np

from mgjax.flow.frame_noise import frame_noise
from mgjax.flow.sample import sample
from mgjax.flow.schedules import linear
from mgjax.flow.windows import windows
from mgjax.sections.audio import extend
from tests.flow.test_multidiffusion import guided

EPS = np.finfo(np.float32).eps
CHANNELS = 3
TOTAL, SIZE, OVERLAP = 50, 16, 6


def noise_of(seed=0):
  return functools.partial(frame_noise, seed, shape=(1, 1, CHANNELS))


def whole_noise(total=TOTAL, seed=0):
  return noise_of(seed)(np.arange(1), 0, total)


def conditions_of(features):
  """A batch is a row of words, and a number for every frame."""

  def conditions(start, stop):
    words = np.full((1, 2), 0.5, np.float32)
    return {'text': words, 'frame_features': features[None, start:stop]}

  return conditions


def features(total=TOTAL):
  return np.sin(np.arange(total, dtype=np.float32))[:, None]


def generate(batch, noise, make_velocity=guided, steps=4):
  return sample(make_velocity(batch), jnp.asarray(noise), linear(steps), 'midpoint')


def join(chunks):
  return np.concatenate(list(chunks))


def test_noise_belongs_to_a_frame():
  whole = whole_noise()
  assert whole.shape == (1, TOTAL, 1, 1, CHANNELS)
  np.testing.assert_array_equal(noise_of()(np.arange(1), 10, 20), whole[:, 10:20])
  others = noise_of()(np.array([1, 0]), 10, 20)
  np.testing.assert_array_equal(others[1:], whole[:, 10:20])
  assert not (others[0] == others[1]).any() and not (whole_noise(seed=1) == whole).any()
  many = np.asarray(noise_of()(np.arange(4), 0, 4000))
  assert abs(many.mean()) < 4 / np.sqrt(many.size) and abs(many.var() - 1) < 6 / np.sqrt(many.size)


def test_concatenation_is_the_windows_side_by_side():
  cover = windows(TOTAL, SIZE)
  made = join(extend.concatenate(generate, conditions_of(features()), noise_of(), cover))
  whole = generate(conditions_of(features())(0, TOTAL), whole_noise())
  # The model is pointwise in time and the noise a frame's own, so this is exact but for rounding.
  np.testing.assert_allclose(made, whole[0], atol=8 * 10 * EPS, rtol=0)


def seen_by(cover, way=extend.autoregress, **options):
  """The contexts and results of every window, of a model that adds 1 to its noise."""
  seen = []

  def spy(batch, noise):
    seen.append(batch['context'][0, :, 0, 0, 0].copy())
    return noise + 1

  made = list(way(spy, conditions_of(features(cover.length)), noise_of(), cover, **options))
  return seen, made


def test_each_window_sees_the_end_of_what_was_made_and_keeps_it_bit_for_bit():
  cover = windows(TOTAL, SIZE, OVERLAP)
  seen, made = seen_by(cover)
  whole = join(made)
  assert len(seen) == len(cover.starts) == len(made) and len(whole) == TOTAL
  assert [len(part) for part in made] == [16, 10, 10, 10, 4]
  assert not seen[0].any()
  done = SIZE
  for start, context in zip(cover.starts[1:], seen[1:], strict=True):
    np.testing.assert_array_equal(context[: done - start], whole[start:done, 0, 0, 0])
    assert not context[done - start :].any()
    done = start + SIZE
  np.testing.assert_array_equal(whole, np.asarray(whole_noise())[0] + 1)


def test_concatenation_sees_nothing():
  seen, made = seen_by(windows(TOTAL, SIZE, OVERLAP), extend.concatenate)
  assert not np.any(seen)
  assert [len(part) for part in made] == [16, 16, 16, 2]


def test_what_is_given_is_in_sight_and_stays_wherever_it_lies():
  total = 40
  known = np.zeros(total, bool)
  known[[3, 4, *range(12, 30), 39]] = True
  sound = np.random.default_rng(0).normal(size=(total, 1, 1, CHANNELS)).astype(np.float32)

  def given(start, stop):
    return sound[start:stop], known[start:stop]

  cover = windows(total, 12, 4)
  seen, made = seen_by(cover, read_known=given)
  whole = join(made)
  np.testing.assert_array_equal(whole[known], sound[known])
  np.testing.assert_array_equal(whole[~known], np.asarray(whole_noise(total))[0][~known] + 1)
  assert cover.starts == (0, 8, 16, 24, 28)
  # The windows from 8 and from 16 hold nothing unknown once those before are made.
  assert len(seen) == 3
  np.testing.assert_array_equal(seen[0] != 0, known[:12])
  np.testing.assert_array_equal(seen[1] != 0, [True] * 4 + list(known[28:36]))
  _, apart = seen_by(cover, extend.concatenate, read_known=given)
  np.testing.assert_array_equal(join(apart)[known], sound[known])


def test_the_candidate_of_the_best_score_is_taken():
  cover = windows(TOTAL, SIZE, OVERLAP)
  scored = []

  def score(windows, start):
    scored.append((start, windows.shape))
    return np.array([0.0, 0.0, 1.0, 0.5, 0.0])

  seen, made = seen_by(cover, search=extend.Search(5, score=score), rows=2)
  np.testing.assert_array_equal(join(made), np.asarray(noise_of()(np.array([2]), 0, TOTAL))[0] + 1)
  assert scored == [(start, (5, SIZE, 1, 1, CHANNELS)) for start in cover.starts]
  assert len(seen) == 3 * len(cover.starts)  # two rows at a time, always two


def chain(batch, noise):
  """Each new frame is the last known one, plus or minus 1 by the sign of its noise."""
  context = batch['context']
  last = np.array([row[np.flatnonzero(row.any((1, 2, 3)))[-1:]].sum((0, 1, 2)) for row in context])
  step = np.sign(np.asarray(noise)[:, -1:])
  return np.broadcast_to(last.reshape(len(last), 1, 1, 1, -1) + step, noise.shape)


def test_a_beam_finds_what_the_greedy_choice_misses():
  # One candidate steps up at every window, the other down. A first step down is worth 1, to stand
  # at +2 in the end is worth 100.
  cover = windows(6, 4, 2)
  assert cover.starts == (0, 2)

  def noise(candidates, start, stop):
    signs = np.where(np.asarray(candidates) % 2, 1.0, -1.0)
    return np.broadcast_to(signs.reshape(-1, 1, 1, 1, 1), (len(signs), stop - start, 1, 1, 1))

  def score(windows, start):
    place = windows[:, -1, 0, 0, 0]
    return (place < 0) * (start == 0) + 100 * (place == 2)

  def run(beams):
    search = extend.Search(2, beams, score)
    made = extend.autoregress(chain, lambda start, stop: {}, noise, cover, search=search)
    return join(made)[:, 0, 0, 0]

  assert run(beams=1)[0] == -1
  np.testing.assert_array_equal(run(beams=2), [1, 1, 1, 1, 2, 2])


def test_beams_yield_what_they_agree_on_as_soon_as_they_do():
  cover = windows(200, 8, 2)

  def score(windows, start):
    return np.array([1.0, 0.0])  # the second candidate never survives two segments

  yielded, asked = [], []

  def conditions(start, stop):
    asked.append(start)
    return {}

  search = extend.Search(2, beams=2, score=score)
  for part in extend.autoregress(
    lambda batch, noise: noise, conditions, noise_of(), cover, search=search
  ):
    yielded.append(len(asked))
    assert len(part)
  assert len(yielded) == len(cover.starts)
  assert all(made - place <= 2 for place, made in enumerate(yielded))


def test_one_program_serves_every_window():
  traced = []

  @jax.jit
  def counted(batch, noise):
    traced.append(noise.shape)
    return generate(batch, noise)

  cover = windows(TOTAL, SIZE, OVERLAP)

  def score(windows, start):
    return np.arange(len(windows))

  for options in ({}, {'search': extend.Search(3, 2, score), 'rows': 1}):
    join(extend.autoregress(counted, conditions_of(features()), noise_of(), cover, **options))
  assert traced == [(1, SIZE, 1, 1, CHANNELS)]
