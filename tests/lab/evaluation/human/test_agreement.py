"""Agreement of raters: by hand, against statsmodels, and against what simulated raters do."""

import itertools

import numpy as np
import pytest

from mgjax.lab.evaluation.human.agreement import agreement, fleiss_kappa, krippendorff_alpha, raters
from mgjax.lab.evaluation.human.votes import Vote
from tests.lab.evaluation.human.simulated import Raters, draw_counts

# Fleiss 1971's table as it is printed everywhere: ten things, fourteen raters, five answers.
FLEISS_ROWS = """0 0 0 0 14, 0 2 6 4 2, 0 0 3 5 6, 0 3 9 2 0, 2 2 8 1 1,
                 7 7 0 0 0, 3 2 6 3 0, 2 5 3 2 2, 6 5 2 1 0, 0 2 2 3 7"""
FLEISS = np.array([[*map(int, row.split())] for row in FLEISS_ROWS.split(',')])
# Krippendorff 2011, C: four observers, twelve units of which some lack answers, five names.
KRIPPENDORFF = (
  '1 2 3 3 2 1 4 1 2 . . .',
  '1 2 3 3 2 2 4 1 2 5 . 3',
  '. 3 3 3 2 3 4 2 2 5 1 .',
  '1 2 3 3 2 4 4 1 2 5 1 .',
)


def counted(rows):
  """How often each thing got each of five names."""
  columns = zip(*(row.split() for row in rows), strict=True)
  return np.array([[column.count(str(name)) for name in range(1, 6)] for column in columns])


def coincidences(counts):
  """Krippendorff's alpha by its table of coincidences, pair by pair."""
  table = np.zeros((counts.shape[1], counts.shape[1]))
  for row in counts:
    answers = np.repeat(np.arange(len(row)), row)
    for i, j in itertools.permutations(range(len(answers)), 2):
      table[answers[i], answers[j]] += 1 / (len(answers) - 1)
  total, n = table.sum(), table.sum(0)
  seen = total - np.trace(table)
  expected = (total**2 - (n**2).sum()) / (total - 1)
  return 1 - seen / expected


def test_published_examples_come_out_and_alpha_is_that_of_its_table_of_coincidences():
  assert fleiss_kappa(FLEISS) == pytest.approx(0.210, abs=5e-4)
  assert krippendorff_alpha(counted(KRIPPENDORFF)) == pytest.approx(0.743, abs=5e-4)
  counts = np.random.default_rng(0).integers(0, 4, (50, 3))  # some have no answer, some one
  assert krippendorff_alpha(counts) == pytest.approx(coincidences(counts), rel=1e-12)


def test_answers_of_prompts_with_one_rater_say_nothing():
  counts = draw_counts(np.random.default_rng(0), 40)
  alone = np.eye(3, dtype=int)[[0, 1, 2, 0]]
  both = np.concatenate([counts, alone])
  assert krippendorff_alpha(both) == krippendorff_alpha(counts)
  assert fleiss_kappa(both) == fleiss_kappa(counts)
  assert agreement(both).prompts == 40


def test_raters_who_agree_have_1_and_shuffled_ones_0():
  same = np.eye(3, dtype=int)[[0, 1, 2, 0, 1]] * 3
  assert krippendorff_alpha(same) == fleiss_kappa(same) == 1
  shuffled = draw_counts(np.random.default_rng(0), 20_000, Raters(sees=0))
  assert krippendorff_alpha(shuffled) == pytest.approx(0, abs=0.02)
  one_answer = np.array([[3, 0, 0], [3, 0, 0]])
  assert np.isnan(krippendorff_alpha(one_answer)) and np.isnan(fleiss_kappa(one_answer))
  assert np.isnan(agreement(one_answer).low)


def truth(who):
  """Alpha of all prompts there could be: agreement of two answers, beyond that of all answers."""
  answers = np.array([who.answers(truth) for truth in range(3)])
  same = np.array(who.shares) @ (answers**2).sum(1)
  chance = ((np.array(who.shares) @ answers) ** 2).sum()
  return (same - chance) / (1 - chance)


@pytest.mark.slow
def test_an_interval_of_95_percent_has_the_truth_in_95_percent_of_studies():
  counts = draw_counts(np.random.default_rng(0), 200, studies=(2000,))
  agreements = [agreement(study, resamples=500, seed=seed) for seed, study in enumerate(counts)]
  covered = np.mean([alpha.low <= truth(Raters()) <= alpha.high for alpha in agreements])
  assert 0.935 <= covered <= 0.965


@pytest.mark.oracle
def test_kappa_is_that_of_statsmodels():
  inter_rater = pytest.importorskip('statsmodels.stats.inter_rater')
  for counts in (FLEISS, draw_counts(np.random.default_rng(0), 300)):
    assert fleiss_kappa(counts) == pytest.approx(inter_rater.fleiss_kappa(counts), abs=1e-12)


def vote(number, rater, choice, prompt, gold='', sides=('a', 'b')):
  return Vote(
    str(number), str(prompt), prompt, 'overall', rater, *sides, choice, 1000 * number, '', gold
  )


def test_raters_are_described_by_gold_repeats_and_sides():
  votes = [vote(n, 'ann', 'left', n) for n in range(4)]
  votes += [vote(4, 'ann', 'tie', 4), vote(5, 'ann', 'cannot_judge', 5)]
  votes += [vote(6, 'ann', 'right', 0, sides=('b', 'a'))]  # the same again, sides changed
  votes += [vote(7, 'ann', 'right', 1)]  # the opposite
  votes += [vote(8, 'ann', 'left', 9, 'a'), vote(9, 'ann', 'tie', 9, 'a')]
  votes += [vote(10, 'bob', 'right', 0)]
  ann, bob = raters(votes)
  assert (ann.name, ann.answers, ann.ties, ann.cannot_judge, ann.seconds) == ('ann', 6, 1, 1, 2.5)
  assert (ann.consistent.value, ann.consistent.count) == (0.5, 2)
  assert (ann.gold.value, ann.gold.count) == (0.5, 2)
  assert (ann.left.value, ann.left.count) == (1, 4)
  assert bob.gold is bob.consistent is None


def test_raters_are_flagged_where_gold_items_or_sides_leave_no_doubt():
  careful = [vote(n, 'careful', ('left', 'right')[n % 2], n) for n in range(20)]
  careful += [vote(100 + n, 'careful', 'left', 50 + n, 'a') for n in range(9)]
  careful += [vote(200, 'careful', 'right', 80, 'a')]  # one slip of ten
  guessing = [vote(300 + n, 'guessing', ('left', 'right')[n % 2], n, 'a') for n in range(10)]
  lazy = [vote(400 + n, 'lazy', 'left', n) for n in range(20)]
  flags = {rater.name: rater.flags for rater in raters(careful + guessing + lazy)}
  assert flags['careful'] == ()
  assert flags['guessing'] == ('right about 50% of 10 gold items',)
  assert flags['lazy'] == ('left in 100% of 20 answers',)
