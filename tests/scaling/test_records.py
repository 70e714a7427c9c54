"""Records of anybody's runs by the binary: laws, budgets, recipes, and files that are none."""

import json

import numpy as np
import pytest

from mgjax.core.errors import ConfigError, DataError
from mgjax.scaling.findings import audit, find_law
from mgjax.scaling.parametric import Runs, fit_law
from mgjax.scaling.records import choose_arm, read_arms
from tests import binaries
from tests.scaling.test_comparison import SECOND
from tests.scaling.test_parametric import SURFACES, runs

FIRST = SURFACES['hoffmann']


def noisy(law, seed=0):
  size, tokens, loss = runs(law)
  return Runs(size, tokens, loss * np.exp(0.002 * np.random.default_rng(seed).normal(size=45)))


@pytest.fixture
def records(tmp_path):
  lines = ['arm,parameters,tokens,loss']
  for arm, law in (('llama', FIRST), ('dit', SECOND)):
    lines += [f'{arm},{n:.17g},{d:.17g},{x:.17g}' for n, d, x in zip(*noisy(law), strict=True)]
  path = tmp_path / 'runs.csv'
  path.write_text('\n'.join(lines))
  return path


def test_a_published_table_is_read_by_its_own_names(tmp_path):
  path = tmp_path / 'epoch.csv'
  path.write_text('x,Model Size,Training FLOP,loss\n1,1e9,6e19,2.5\n2,2e9,6e20,2.25\n')
  arms = read_arms(path)
  assert list(arms) == ['']
  assert arms[''].tokens.tolist() == [1e10, 5e10] and arms[''].loss.tolist() == [2.5, 2.25]
  path = tmp_path / 'sweep.jsonl'
  row = {'arm': 'a', 'parameters': 10, 'tokens': 20, 'loss': 3, 'validation_loss': 4}
  path.write_text(json.dumps(row) + '\n')
  assert read_arms(path)['a'].loss.tolist() == [4]


@pytest.mark.parametrize(
  ('text', 'told'),
  (
    ('parameters,loss\n1,2\n', 'row 1: has no tokens or d or training tokens or flops'),
    ('parameters,tokens,loss\n1,2,x\n', "row 1: loss is 'x'; expected a number above 0"),
    ('parameters,tokens,loss\n-1,2,3\n', 'expected a number above 0'),
    ('parameters,tokens,loss\n', 'write a header such as parameters,tokens,loss'),
  ),
  ids=('without tokens', 'without a number', 'below 0', 'empty'),
)
def test_rows_that_are_no_runs_are_one_sentence(tmp_path, text, told):
  path = tmp_path / 'runs.csv'
  path.write_text(text)
  with pytest.raises(DataError, match=told):
    read_arms(path)


def test_an_arm_is_chosen_by_name(records):
  arms = read_arms(records)
  assert choose_arm(arms, 'dit', 'arm') is arms['dit']
  with pytest.raises(ConfigError, match='--arm=: expected one of the arms llama, dit'):
    choose_arm(arms, '', 'arm')


def test_the_commands_fit_predict_and_compare(records):
  done = binaries.run('scaling', 'fit', f'--records={records}', '--arm=llama', '--resamples=20')
  assert done.returncode == 0, done.stderr
  assert 'alpha' in done.stdout and 'N*(C) = ' in done.stdout
  assert 'warning: every run is of one seed' in done.stdout
  done = binaries.run(
    'scaling', 'predict', f'--records={records}', '--arm=llama', '--compute=1e24',
    '--resamples=20',
  )  # fmt: skip
  assert done.returncode == 0 and '2 x the size' in done.stdout, done.stderr
  assert 'warning: 3.0 decades beyond the largest run' in done.stdout
  done = binaries.run(
    'scaling', 'compare', f'--records={records}', '--first=llama', '--second=dit',
    '--resamples=20',
  )  # fmt: skip
  assert done.returncode == 0, done.stderr
  lines = done.stdout.splitlines()
  factors = [line.split()[1] for line in lines if 'e+' in line and '[' in line]
  assert len(factors) == 5 and all(abs(float(factor) - 1.3) < 0.1 for factor in factors)
  done = binaries.run('scaling', 'predict', f'--records={records}', '--arm=dit')
  assert done.returncode == 2 and '--compute is missing' in done.stderr


def test_intervals_hold_the_number_and_narrow_with_less_noise():
  found = find_law(noisy(FIRST), resamples=40)
  for number in found.numbers().values():
    assert number.low <= number.value <= number.high
  sure = find_law(runs(FIRST), resamples=10)
  width = {each: found.numbers()['alpha'].high - found.numbers()['alpha'].low
           for each, found in (('noisy', found), ('sure', sure))}  # fmt: skip
  assert width['sure'] < 0.01 * width['noisy']


def test_grids_that_spoil_a_law_are_told():
  def told(law=FIRST, seeds=1, **grid):
    given = runs(law, **grid)
    given = Runs(*(np.tile(each, seeds) for each in given))
    return ' '.join(audit(given, fit_law(given)))

  assert told(seeds=2) == ''
  assert 'of one seed' in told()
  assert 'span 2.4 decades' in told(width=2.4, off=0.0)
  assert 'sizes are below the best one and' in told(width=0.4, off=0.4)
  assert 'budgets span 0.5 decades' in told(budgets=(1e18, 10**18.5, 5))
