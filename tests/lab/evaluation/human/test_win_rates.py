"""Net win rates against closed forms, scipy, what is published and what is true."""

import math

import numpy as np
import pytest
import scipy.stats

from mgjax.core.errors import DataError
from mgjax.lab.evaluation.human import win_rates as statistics
from mgjax.lab.evaluation.human.votes import Vote
from mgjax.lab.evaluation.human.win_rates import (
  groups,
  half_width,
  majority,
  net_win_rate,
  prompts_needed,
  sigma,
  tally,
  verdict,
)
from mgjax.lab.statistics.intervals import compare
from tests.lab.evaluation.human.simulated import Raters, draw_counts, net

WIDTHS = {100: 16.8, 300: 9.7, 527: 7.3, 1003: 5.3}  # published, of the usual raters
# Table 30, Movie Gen Audio Bench SFX: net win rates and half-widths of 527 prompts.
TABLE_30 = """
91.0 2.3  78.1 3.0  90.7 2.3  81.8 3.0  70.9 4.3
71.4 4.0  60.7 4.2  71.9 4.0  57.4 4.3  53.3 5.1
71.7 4.0  65.3 4.2  72.0 4.0  76.5 3.6  72.8 4.4
83.9 3.0  72.3 3.6  83.9 3.0  66.6 3.9  56.7 4.9
71.5 4.0  70.0 3.9  71.4 3.9  59.4 4.4  51.4 5.3
31.3 5.6  27.4 5.4  31.1 5.5  38.3 5.1  36.0 6.0
"""


def vote(prompt, rater, choice, left='a', right='b', question='overall', gold=''):
  return Vote('', str(prompt), prompt, question, rater, left, right, choice, gold=gold)


def test_a_majority_is_what_more_raters_say_than_anything_else():
  won, lost = [(3, 0, 0), (2, 0, 1), (3, 2, 1)], [(1, 0, 2), (0, 0, 1)]
  neither = [(1, 2, 0), (1, 1, 1), (1, 0, 1), (1, 1, 0), (2, 2, 2)]  # ties, and no majority
  assert majority(np.array(won + lost + neither)).tolist() == [1] * 3 + [-1] * 2 + [0] * 5


def test_votes_are_counted_by_model_wherever_it_stood():
  votes = [
    vote(7, 'x', 'left'),
    vote(7, 'y', 'right', 'b', 'a'),
    vote(7, 'z', 'right'),
    vote(2, 'x', 'tie'),
    vote(2, 'y', 'cannot_judge'),
    vote(4, 'x', 'cannot_judge'),
    vote(4, 'x', 'left', question='realness'),
    vote(4, 'x', 'left', 'a', 'c'),
  ]
  first, second, third = tally(votes, ['b', 'a'])
  assert (first.question, first.ours, first.theirs) == ('overall', 'b', 'a')
  assert first.prompts.tolist() == [2, 7]
  assert first.counts.tolist() == [[0, 1, 0], [1, 0, 2]]
  assert first.verdicts.tolist() == [0, -1]
  assert first.cannot_judge == 2
  assert (second.question, second.ours) == ('realness', 'b')
  assert (third.ours, third.theirs) == ('a', 'c')  # c is in no order: it follows


def test_gold_items_and_second_answers_do_not_count():
  votes = [
    vote(1, 'x', 'left'),
    vote(1, 'x', 'right'),  # asked again
    vote(1, 'x', 'left', 'b', 'a'),  # and again, with sides changed
    vote(3, 'x', 'left', 'a', 'spoilt', gold='a'),
  ]
  (only,) = tally(votes)
  assert only.counts.tolist() == [[1, 0, 0]]
  with pytest.raises(DataError, match="compares 'a' with itself"):
    tally([vote(1, 'x', 'left', 'a', 'a')])


def test_a_net_win_rate_is_wins_less_losses_and_half_of_it_above_50():
  rate = net_win_rate([1] * 67 + [0] * 18 + [-1] * 15)  # raters on captions of video, Movie Gen
  assert (rate.value, rate.win_rate, rate.prompts) == (52, 76, 100)
  assert str(rate) == f'+52.0 ± {rate.half_width:.1f}'


def test_its_interval_is_that_of_the_paired_bootstrap_over_prompts():
  verdicts = np.repeat([1, 0, -1], [390, 270, 343])
  rate = net_win_rate(verdicts)
  table = 100.0 * verdicts[None]
  other = compare(np.zeros_like(table), table, seed=1)
  # Quantiles of 10,000 resamples are off by a fiftieth of a standard deviation; expected as well
  # sit the steps of 100 / n.
  error = 4 * other.standard_error / 50 + 100 / len(verdicts)
  assert (rate.low, rate.high) == pytest.approx((other.low, other.high), abs=error)
  assert rate.value == pytest.approx(other.difference)


@pytest.mark.parametrize('n', WIDTHS)
def test_its_width_is_the_published_one(n):
  counts = draw_counts(np.random.default_rng(n), n, studies=(100,))
  widths = [net_win_rate(majority(study), resamples=1000).half_width for study in counts]
  # The mean over 100 studies: quantiles of 1,000 resamples vary by 4%, that of 100 prompts by 7%.
  assert np.mean(widths) == pytest.approx(WIDTHS[n], rel=0.025)


@pytest.mark.slow
@pytest.mark.parametrize(
  ('n', 'raters'),
  [
    (40, Raters()),
    (100, Raters()),
    (1003, Raters()),
    (527, Raters(shares=(0.9, 0.05, 0.05), sees=0.9)),  # far from 0
    (381, Raters(shares=(0.05, 0.9, 0.05), sees=0.9)),  # nearly all ties
    (60, Raters(raters=1)),
    (200, Raters(raters=6)),
  ],
)
def test_an_interval_of_95_percent_has_the_truth_in_95_percent_of_studies(n, raters):
  counts = draw_counts(np.random.default_rng(1), n, raters, studies=(2000,))
  verdicts = majority(counts.reshape(-1, 3)).reshape(2000, n)
  rates = [net_win_rate(study, resamples=1000, seed=seed) for seed, study in enumerate(verdicts)]
  covered = np.mean([rate.low <= net(raters) <= rate.high for rate in rates])
  assert 0.935 <= covered <= 0.965


@pytest.mark.parametrize('n', [1, 4, 30])
@pytest.mark.parametrize('value', [1, 0, -1])
def test_verdicts_that_are_all_the_same_leave_room_for_others(n, value):
  rate = net_win_rate([value] * n)
  missing = 100 * (1 - 0.025 ** (1 / n))
  low = scipy.stats.binomtest(n, n).proportion_ci(0.95, 'exact').low
  assert missing == pytest.approx(100 * (1 - low))
  ends = sorted([100 * value, value * (100 - 2 * missing)]) if value else [-missing, missing]
  assert (rate.low, rate.high) == pytest.approx(tuple(ends))


def test_an_interval_depends_on_its_seed_alone_and_turns_with_the_models():
  verdicts = np.repeat([1, 0, -1], [30, 20, 10])
  assert net_win_rate(verdicts) == net_win_rate(verdicts) != net_win_rate(verdicts, seed=1)
  there, back = net_win_rate(verdicts), net_win_rate(-verdicts)
  assert back.value == -there.value
  assert (back.low, back.high) == pytest.approx((-there.high, -there.low), abs=3)  # other draws


def test_the_sign_test_is_of_both_sides_and_ties_say_nothing():
  rate = net_win_rate([1] * 10 + [0] * 5)
  assert rate.sign_probability == pytest.approx(2 * 2**-10)
  assert net_win_rate([0, 0]).sign_probability == 1


def test_prompts_are_grouped_by_each_of_their_concepts_and_by_motion():
  prompts = [
    {'prompt': 'a', 'concepts': ['animal', 'scene'], 'motion': 'low'},
    {'prompt': 'b', 'concepts': [], 'motion': ''},
    {'prompt': 'c', 'concepts': ['scene'], 'motion': 'high'},
  ]
  masks = {(kind, name): mask.tolist() for kind, name, mask in groups(prompts, np.array([0, 1, 2]))}
  assert masks == {
    ('concept', 'animal'): [True, False, False],
    ('concept', 'scene'): [True, False, True],
    ('motion', 'high'): [False, False, True],
    ('motion', 'low'): [True, False, False],
  }
  with pytest.raises(DataError, match='votes about prompt 3, and the study has 3 prompts'):
    list(groups(prompts, np.array([1, 3])))


def test_sigma_is_the_spread_of_repeats():
  rates = [3.0, 8.0, -1.0, 6.0]
  estimate = sigma([rates])
  assert estimate.value == pytest.approx(np.std(rates, ddof=1))
  assert estimate.repeats == 4
  assert (estimate.low / estimate.value, estimate.high / estimate.value) == pytest.approx(
    (0.57, 3.73), abs=0.01
  )
  # Of several comparisons variances are pooled, whatever their means are.
  assert sigma([[0, 2], [100, 102]]).value == pytest.approx(math.sqrt(2))
  with pytest.raises(DataError, match='made twice'):
    sigma([[1.0], [2.0]])


def test_verdicts_are_those_of_the_report():
  """Table 6, against Sora and Kling; Table 8, by what N3 makes of the two sigmas."""
  significant = [(35.02, 5.07), (-10.04, 1.68), (16.53, 5.07)]
  moderate, on_par = [(8.23, 5.07), (-1.72, 1.68), (7.08, 3.74)], [(3.87, 5.07), (-0.80, 5.07)]
  assert {verdict(*pair) for pair in significant} == {statistics.SIGNIFICANT}
  assert {verdict(*pair) for pair in moderate} == {statistics.MODERATE}
  assert {verdict(*pair) for pair in on_par} == {statistics.ON_PAR}


def test_published_intervals_of_the_audio_bench_come_back_from_the_counts_that_they_imply():
  numbers = iter(map(float, TABLE_30.split()))
  impossible = 0
  for value, width in zip(numbers, numbers, strict=True):
    d, n = value / 100, 527
    decided = (width / 196) ** 2 * n + d * d  # the share of wins and losses, from the variance
    if 196 * math.sqrt(d * (1 - d) / n) > width + 0.05:  # even without any loss it were wider
      impossible += 1
      continue
    losses = max(round(n * (decided - d) / 2), 0)
    wins = round(n * d) + losses
    rate = net_win_rate(np.repeat([1, 0, -1], [wins, n - wins - losses, losses]))
    assert rate.value == pytest.approx(value, abs=0.1)  # half of 100 / 527
    # Rounding as printed, a step of either end, and quantiles of 10,000 resamples.
    assert rate.half_width == pytest.approx(width, abs=0.05 + 0.1 + width / 50)
  # Eight of thirty are narrower than majorities of 527 prompts can be: of those, prompts had scores
  # between, as the mean over raters is.
  assert impossible == 8


def test_the_usual_raters_have_the_published_intervals():
  assert Raters().majorities() == pytest.approx(statistics.USUAL)
  win, _, lose = statistics.USUAL
  assert {n: round(half_width(n, win, lose), 1) for n in WIDTHS} == WIDTHS


def test_so_many_prompts_find_a_difference_as_often_as_they_should():
  generator, difference, tie = np.random.default_rng(0), 10.0, 0.3
  shares = (0.4, 0.3, 0.3)
  for chance in (0.5, 0.8, 0.95):
    n = prompts_needed(difference, tie, chance)
    counts = generator.multinomial(n, shares, 20_000)
    net = 100 * (counts[:, 0] - counts[:, 2]) / n
    widths = [half_width(n, *row) for row in (counts[:50, [0, 2]] / n).tolist()]
    share = np.mean(net > np.mean(widths))
    assert share == pytest.approx(chance, abs=0.02)  # of counts with steps of 100 / n
