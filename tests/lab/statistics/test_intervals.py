"""The paired bootstrap over seeds and prompts: against plain loops, and against what is true."""

import numpy as np
import pytest
import scipy.stats

from mgjax.core.errors import DataError
from mgjax.lab.statistics.intervals import compare, compare_rows, share


def loops(x, y, same_seeds, resamples, seed):
  """Resamples one by one, number by number, by the same draws."""
  generator = np.random.default_rng(seed)
  prompts = len(x[0])
  of_x = generator.integers(0, len(x), (resamples, len(x)))
  of_y = of_x if same_seeds else generator.integers(0, len(y), (resamples, len(y)))
  columns = generator.integers(0, prompts, (resamples, prompts))
  differences = []
  for a, b, c in zip(of_x, of_y, columns, strict=True):
    first = [x[i][j] for i in a for j in c]
    second = [y[i][j] for i in b for j in c]
    differences.append(sum(second) / len(second) - sum(first) / len(first))
  differences = np.array(differences)
  tails = 2 * min(np.mean(differences <= 0), np.mean(differences >= 0))
  few = len(c)
  wide = scipy.stats.t.ppf(0.975, few - 1) * (few / (few - 1)) ** 0.5
  tail = scipy.stats.norm.cdf(-wide) if len(x) == len(y) == 1 else 0.025
  return (
    np.quantile(differences, tail),
    np.quantile(differences, 1 - tail),
    differences.std(),
    min(tails, 1),
  )


def experiment(generator, sizes, effects, difference=0.0):
  """Scores of two arms, whose prompts are equally hard and whose differences have these effects.

  `effects` are the standard deviations, in the differences, of seeds, of prompts and of noise.
  """
  seeds, prompts = sizes
  hard = 2 * generator.normal(size=prompts)

  def arm(mean):
    parts = (generator.normal(size=shape) for shape in ((seeds, 1), (1, prompts), sizes))
    return mean + hard + sum(e / 2**0.5 * part for e, part in zip(effects, parts, strict=True))

  return arm(0.0), arm(difference)


@pytest.mark.parametrize('sizes', [(3, 5, 3, True), (3, 5, 2, False), (1, 8, 1, True)])
def test_it_is_what_plain_loops_find(sizes):
  seeds, prompts, others, same = sizes
  generator = np.random.default_rng(7)
  x, y = generator.normal(size=(seeds, prompts)), generator.normal(size=(others, prompts)) + 0.2
  difference = compare(x, y, same_seeds=same, resamples=300, seed=5)
  expected = loops(x.tolist(), y.tolist(), same, 300, 5)
  actual = (difference.low, difference.high, difference.standard_error, difference.sign_probability)
  np.testing.assert_allclose(actual, expected, rtol=1e-9)
  assert difference.difference == pytest.approx(y.mean() - x.mean())
  assert difference.means == (x.mean(), y.mean())
  assert (difference.seeds, difference.prompts) == ((seeds, others), prompts)


@pytest.mark.parametrize(
  ('sizes', 'effects', 'least', 'most'),
  [
    ((10, 40), (0.3, 1, 1), 0.93, 0.98),
    ((10, 40), (0.0, 0.0, 1), 0.98, 1.0),  # sqrt(3) times too wide
    ((3, 40), (1.0, 0.0, 0.0), 0.60, 0.75),  # three seeds decide: no interval can reach further
  ],
)
def test_an_interval_covers_the_truth_as_often_as_its_formula_says(sizes, effects, least, most):
  generator, covered = np.random.default_rng(0), []
  variances, differences = [], []
  for seed in range(400):
    pair = experiment(generator, sizes, effects, difference=0.3)
    difference = compare(*pair, resamples=400, seed=seed)
    covered.append(difference.low <= 0.3 <= difference.high)
    variances.append(difference.standard_error**2)
    differences.append(difference.difference)
  assert least <= np.mean(covered) <= most
  (s, p), (a, b, e) = sizes, np.square(effects)
  expected = (1 - 1 / s) * a / s + (1 - 1 / p) * b / p
  expected += ((2 - 1 / s) * (2 - 1 / p) - 1) * e / (s * p)
  np.testing.assert_allclose(np.mean(variances), expected, rtol=0.1)
  np.testing.assert_allclose(np.var(differences), a / s + b / p + e / (s * p), rtol=0.2)


def test_it_depends_on_its_seed_alone_and_the_order_of_arms_turns_the_sign():
  x, y = experiment(np.random.default_rng(4), (4, 20), (0.3, 1, 1), 0.2)
  assert compare(x, y) == compare(x, y) != compare(x, y, seed=1)
  same = compare(x, x.copy())
  assert (same.difference, same.low, same.high, same.sign_probability) == (0, 0, 0, 1)
  there, back = compare(x, y), compare(y, x)
  assert back.difference == -there.difference
  np.testing.assert_allclose([back.low, back.high], [-there.high, -there.low], rtol=1e-9)
  assert back.sign_probability == there.sign_probability


def test_many_prompts_are_resampled_in_blocks():
  x, y = experiment(np.random.default_rng(5), (2, 3000), (0, 1, 0), 0.1)
  difference = compare(x, y, resamples=3000)
  np.testing.assert_allclose(difference.standard_error, 3000**-0.5, rtol=0.1)
  assert '2 seeds (paired) and 3000 prompts' in str(difference)


@pytest.mark.parametrize(
  ('first', 'second', 'options', 'said'),
  [
    (np.ones((2, 3)), np.ones((2, 4)), {}, r'\(2, 3\) and \(2, 4\) seeds x prompts do not pair'),
    (np.ones((2, 3)), np.ones((3, 3)), {}, 'do not pair'),
    (np.ones((2, 3)), np.ones((3, 4)), {'same_seeds': False}, 'do not pair'),
    ([1.0, 2.0], [1.0, 2.0], {}, 'a row a seed'),
    ([[1.0], [2.0, 3.0]], [[1.0], [2.0]], {}, 'the first scores'),
    ([[1.0, 2.0]], [[1.0, np.nan]], {}, 'the second scores'),
    ([['a', 'b']], [[1.0, 2.0]], {}, 'finite numbers'),
    ([[1.0]], [[2.0]], {}, 'nothing to resample'),
  ],
)
def test_scores_that_do_not_pair_are_refused(first, second, options, said):
  with pytest.raises(DataError, match=said):
    compare(first, second, **options)


def rows(**arms):
  """Rows of a sweep: arm -> {seed: scores}, None for a run that failed."""
  table = []
  for arm, seeds in arms.items():
    for seed, scores in seeds.items():
      outcome = {'error': 'the loss is nan'} if scores is None else {'scores': {'height': scores}}
      table.append({'arm': arm, 'seed': seed, 'validation_loss': float(seed)} | outcome)
  return table


def test_rows_of_a_sweep_are_paired_by_their_seeds_in_whatever_order():
  x, y = experiment(np.random.default_rng(6), (3, 8), (0.3, 1, 1))
  first, second = (dict(enumerate(arm.tolist())) for arm in (x, y))
  table = rows(a=first, b=second)
  assert compare_rows(table[::-1], 'a', 'b', 'height', seed=2) == compare(x, y, seed=2)
  later = {seed + 3: scores for seed, scores in second.items()}
  assert compare_rows(rows(a=first, b=later), 'a', 'b', 'height') == compare(x, y, same_seeds=False)
  difference = compare_rows(table, 'a', 'b', 'validation_loss', seeds=[1, 2])
  assert (difference.means, difference.prompts) == ((1.5, 1.5), 1)


@pytest.mark.parametrize(
  ('arms', 'options', 'said'),
  [
    ({'a': {0: [1, 2]}, 'b': {0: None}}, {}, "arm 'b', seed 0 failed"),
    ({'a': {0: [1, 2]}}, {}, "no row of the arm 'b'"),
    ({'a': {0: [1, 2]}, 'b': {1: [1, 2]}}, {'seeds': [0]}, r"the arm 'b' of the seeds \[0\]"),
    ({'a': {0: [1, 2], 1: [1, 2]}, 'b': {0: [1, 2]}}, {}, r'share the seeds \[0\] and not \[1\]'),
    ({'a': {0: [1, 2]}, 'b': {0: [1, 2, 3]}}, {}, 'do not pair'),
    ({'a': {0: [1, 2]}, 'b': {0: [1, 2]}}, {'score': 'width'}, r"no 'width'; it has \['height'\]"),
  ],
)
def test_rows_that_do_not_pair_are_refused(arms, options, said):
  with pytest.raises(DataError, match=said):
    compare_rows(rows(**arms), 'a', 'b', **({'score': 'height'} | options))


@pytest.mark.parametrize(('right', 'count'), [(0, 5), (7, 40), (40, 40), (5, 5), (199, 216)])
def test_the_interval_of_a_share_is_that_of_wilson(right, count):
  interval = share(np.arange(count) < right)
  reference = scipy.stats.binomtest(right, count).proportion_ci(0.95, 'wilson')
  assert interval.value == right / count and interval.count == count
  assert (interval.low, interval.high) == pytest.approx((reference.low, reference.high), abs=1e-12)
