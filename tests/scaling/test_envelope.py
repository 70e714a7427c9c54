"""The least loss on the way: the exponent of a known surface, and what has no envelope."""

import numpy as np
import pytest

from mgjax.core.errors import DataError
from mgjax.scaling.envelope import fit_envelope
from mgjax.scaling.findings import find_law
from mgjax.scaling.parametric import Runs
from mgjax.scaling.records import Records
from tests.scaling.test_parametric import SURFACES

LAW = SURFACES['hoffmann']
SIZES = np.logspace(7, 9, 24)


def curves(sizes, points=400, most=200.0):
  """From one token a parameter to `most`, on both sides of the best data of every size."""
  tokens = [size * np.logspace(0, np.log10(most), points) for size in sizes]
  return [
    np.stack([seen, LAW.loss(size, seen)], 1) for size, seen in zip(sizes, tokens, strict=True)
  ]


def test_the_envelope_of_a_known_surface_has_its_exponent_and_its_size():
  found = fit_envelope(SIZES, curves(SIZES))
  # Sizes are 9% apart on either side, and the best one of a budget is one of these.
  assert found.exponent == pytest.approx(LAW.exponent, abs=0.005)
  assert found(1e20) == pytest.approx(LAW.optimum(1e20).size, rel=0.01)


def test_few_points_a_curve_are_enough():
  found = fit_envelope(SIZES, curves(SIZES, points=30))
  assert found.exponent == pytest.approx(LAW.exponent, abs=0.01)


def test_the_law_of_records_with_curves_has_the_envelope_too():
  ways = curves(SIZES)
  tokens = 200 * SIZES * np.linspace(0.4, 1, 24)
  runs = Runs(SIZES, tokens, LAW.loss(SIZES, tokens))
  found = find_law(Records(runs, curves=tuple(ways)), resamples=10)
  assert found.envelope is not None and 'by the least loss on the way N*(C)' in found.table()
  assert found.as_dict()['envelope']['exponent'] == pytest.approx(LAW.exponent, abs=0.005)


def test_runs_without_an_envelope_are_one_sentence():
  with pytest.raises(DataError, match='no run has losses on its way'):
    fit_envelope(SIZES, [np.empty((0, 2))] * 24)
  with pytest.raises(DataError, match='0 sizes have the least loss somewhere between'):
    fit_envelope(SIZES[:2], curves(SIZES[:2]))
