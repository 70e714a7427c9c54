"""Steps that others timed, as workloads of the planner, and the table of them."""

import pathlib

import pytest

from tests.lab.planning.published_steps import STEPS, table

PAGE = pathlib.Path(__file__).parent.parent.parent.parent / 'docs/results/performance.md'


@pytest.mark.parametrize(('step', 'billions'), [(0, 8.03), (2, 405.8), (4, 69.0)])
def test_language_models_have_the_parameters_of_their_names(step, billions):
  model = STEPS[step].model
  work = model.workload(1)
  assert work.count / 1e9 == pytest.approx(billions, rel=1e-3)
  # Six operations a parameter and token; the table is looked up, and half of attention is masked.
  dense = 6 * (work.count - model.words * model.dim) * model.tokens
  attention = 6 * model.depth * model.tokens**2 * model.dim
  assert work.flops.training == pytest.approx(dense + attention, rel=1e-9)


def test_the_page_has_what_the_planner_says_of_published_steps():
  page = PAGE.read_text()
  for row in table():
    assert row in page, row
