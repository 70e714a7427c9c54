"""Data seen again: the constants of known surfaces, limits, intervals, records by the binary."""

import json

import numpy as np
import pytest

from mgjax.core.errors import DataError
from mgjax.scaling.law import Law
from mgjax.scaling.parametric import Runs
from mgjax.scaling.repeats import RepeatedLaw, effective, fit_repeated
from tests import binaries

LAW = Law(1.87, 521.0, 1488.0, 0.353, 0.353)  # Muennighoff et al., 2023


def surface(law, noise=0.0):
  """Runs of three sets of data, six sizes each, from half an epoch to a hundred."""
  unique = np.array([1e8, 4e8, 1.5e9]).repeat(42)
  size = np.tile(np.logspace(6.8, 9.5, 6).repeat(7), 3)
  tokens = unique * np.tile([0.5, 1, 2, 4, 10, 40, 100], 18)
  loss = law.loss(size, tokens, unique)
  return Runs(
    size, tokens, loss * np.exp(noise * np.random.default_rng(0).standard_normal(126))
  ), unique  # fmt: skip


@pytest.mark.parametrize('of_size', (None, 5.3), ids=('tokens', 'tokens and sizes'))
def test_a_surface_without_noise_gives_all_constants_back(of_size):
  law = RepeatedLaw(LAW, 15.4, of_size)
  found = fit_repeated(*surface(law), sizes=of_size is not None)
  assert found.law.tokens == pytest.approx(15.4, rel=1e-6)
  assert found.law.size == (None if of_size is None else pytest.approx(5.3, rel=1e-6))
  for name in ('e', 'a', 'b', 'alpha', 'beta'):
    assert getattr(found.law.law, name) == pytest.approx(getattr(LAW, name), rel=1e-6)
  assert not found.at_edge


def test_repeated_data_count_in_full_at_first_and_for_nothing_in_the_end():
  assert effective(1e9, 1e9, 15.4) == 1e9
  assert effective(1.001, 1.0, 15.4) == pytest.approx(1.001, abs=1e-6)
  assert effective(1e9, 1.0, 15.4) == pytest.approx(16.4)
  # Four epochs are nearly as good as fresh data, by the authors' words.
  assert effective(4.0, 1.0, 15.4) == pytest.approx(4, rel=0.08)
  fresh = RepeatedLaw(LAW, 15.4).loss(1e9, 1e9, 2e9)
  assert fresh == LAW.loss(1e9, 1e9)


def test_noise_is_in_the_interval():
  found = fit_repeated(*surface(RepeatedLaw(LAW, 15.4), 0.003), resamples=20)
  again = [law.tokens for law in found.again]
  assert min(again) < 15.4 < max(again) and 0.1 < np.std(again) < 2
  assert f'R_D* {found.law.tokens:.4g} [' in str(found)


def test_data_that_no_repetition_hurts_end_at_the_edge():
  found = fit_repeated(*surface(RepeatedLaw(LAW, 1e7)))
  assert found.at_edge and 'edge of its search' in str(found)


def test_runs_that_saw_their_data_once_are_one_sentence():
  runs, unique = surface(RepeatedLaw(LAW, 15.4))
  with pytest.raises(DataError, match='0 runs saw data again; expected 3'):
    fit_repeated(runs, unique * 1000)


def test_the_binary_fits_records_with_distinct_tokens(tmp_path):
  runs, unique = surface(RepeatedLaw(LAW, 15.4))
  path = tmp_path / 'runs.jsonl'
  rows = zip(*runs, unique, strict=True)
  names = ('parameters', 'tokens', 'loss', 'unique_tokens')
  path.write_text(''.join(json.dumps(dict(zip(names, row, strict=True))) + '\n' for row in rows))
  done = binaries.run('scaling', 'fit', f'--records={path}', '--unique_tokens', '--resamples=10')
  assert done.returncode == 0 and 'R_D* 15.4 [15.4, 15.4]' in done.stdout, done.stderr
  assert 'of 4 epochs the data count as 3.73' in done.stdout
  path.write_text(path.read_text().replace('unique_tokens', 'distinct'))
  done = binaries.run('scaling', 'fit', f'--records={path}', '--unique_tokens')
  assert done.returncode == 2 and 'add the column unique_tokens' in done.stderr
