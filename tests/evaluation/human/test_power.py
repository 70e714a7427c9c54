"""How many prompts a comparison needs: against what is published and what simulated raters do."""

import numpy as np
import pytest

from mgjax.core.errors import ConfigError
from mgjax.evaluation.human.power import Raters, half_width, prompts_needed
from mgjax.evaluation.human.statistics import majority
from tests.evaluation.human.simulated import draw_counts


@pytest.mark.parametrize(('prompts', 'points'), [(100, 16.8), (300, 9.7), (527, 7.3), (1003, 5.3)])
def test_the_usual_raters_have_the_published_intervals(prompts, points):
  win, _, lose = Raters().majorities()
  assert round(half_width(prompts, win, lose), 1) == points


@pytest.mark.parametrize('raters', [Raters(), Raters(1), Raters(6, (0.2, 0.5, 0.3), 0.9)])
def test_majorities_are_those_of_simulated_raters(raters):
  verdicts = majority(draw_counts(np.random.default_rng(0), 100_000, raters))
  found = [np.mean(verdicts == value) for value in (1, 0, -1)]
  assert raters.majorities() == pytest.approx(found, abs=4 * (0.25 / 100_000) ** 0.5)


def test_raters_who_see_everything_say_what_is_right():
  assert Raters(sees=1).majorities() == pytest.approx((0.45, 0.15, 0.4))
  # Three who are independent of what is right: 3 p^2 (1 - p) + p^3.
  win, tie, lose = Raters(sees=0, guesses=(0.45, 0.15, 0.4)).majorities()
  assert (win, lose) == pytest.approx((0.42525, 0.352))
  assert win + tie + lose == pytest.approx(1)


def test_so_many_prompts_find_a_difference_as_often_as_they_should():
  generator, difference, tie = np.random.default_rng(0), 10.0, 0.3
  shares = (0.4, 0.3, 0.3)
  for chance in (0.5, 0.8, 0.95):
    n = prompts_needed(difference, tie, chance)
    counts = generator.multinomial(n, shares, 20_000)
    net = 100 * (counts[:, 0] - counts[:, 2]) / n
    widths = [half_width(n, *row) for row in (counts[:50, [0, 2]] / n).tolist()]
    found = np.mean(net > np.mean(widths))
    assert found == pytest.approx(chance, abs=0.02)  # of counts with steps of 100 / n


def test_a_difference_at_the_end_of_the_interval_is_found_in_half_of_the_studies():
  n = prompts_needed(5.3, 0.27, 0.5)
  width = half_width(n, (1 - 0.27 + 0.053) / 2, (1 - 0.27 - 0.053) / 2)
  assert width == pytest.approx(5.3, rel=1 / n)


@pytest.mark.parametrize(
  ('make', 'said'),
  [
    (lambda: Raters(shares=(0.5, 0.5, 0.5)), 'shares that sum to 1'),
    (lambda: Raters(raters=0), 'raters = 0'),
    (lambda: Raters(sees=1.5), 'sees'),
    (lambda: half_width(0, 0.4, 0.3), 'prompts'),
    (lambda: prompts_needed(0, 0.3), 'difference'),
    (lambda: prompts_needed(5, 0.3, 0.3), 'chance'),
  ],
)
def test_numbers_out_of_their_range_are_refused(make, said):
  with pytest.raises(ConfigError, match=said):
    make()
