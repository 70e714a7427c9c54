"""Records of anybody's runs by the binary: laws, budgets, recipes, and files that are none."""

import json
import math

import numpy as np
import pytest

from mgjax.core.errors import ConfigError, DataError
from mgjax.lab.scaling.findings import find_law, predict
from mgjax.lab.scaling.records import choose_arm, read_records
from tests import binaries
from tests.lab.scaling.test_comparison import SECOND
from tests.lab.scaling.test_parametric import SURFACES, noisy, runs

FIRST = SURFACES['hoffmann']


@pytest.fixture
def records(tmp_path):
  lines = ['arm,parameters,tokens,loss']
  for arm, law in (('llama', FIRST), ('dit', SECOND)):
    lines += [
      f'{arm},{n:.17g},{d:.17g},{x:.17g}' for n, d, x in zip(*noisy(law, noise=0.002), strict=True)
    ]
  path = tmp_path / 'runs.csv'
  path.write_text('\n'.join(lines))
  return path


def test_a_published_table_is_read_by_its_own_names(tmp_path):
  path = tmp_path / 'epoch.csv'
  path.write_text('x,Model Size,Training FLOP,loss\n1,1e9,6e19,2.5\n2,2e9,6e20,2.25\n')
  ((name, found),) = read_records(path).items()
  assert name == ''
  assert found.runs.tokens.tolist() == [1e10, 5e10] and found.runs.loss.tolist() == [2.5, 2.25]
  path = tmp_path / 'sweep.jsonl'
  row = {'arm': 'a', 'parameters': 10, 'tokens': 20, 'loss': 3, 'validation_loss': 4}
  path.write_text(json.dumps(row) + '\n')
  assert read_records(path)['a'].runs.loss.tolist() == [4]


@pytest.mark.parametrize(
  ('text', 'told'),
  (
    ('parameters,loss\n1,2\n', 'row 1: has no tokens or d or training tokens or flops'),
    ('parameters,tokens,loss\n1,2,x\n', "row 1: loss is 'x'; expected a number above 0"),
    (f'parameters,tokens,loss\n1,2,{"9" * 5000}\n', "loss is '9{79}; expected a number above 0"),
    ('parameters,tokens,loss\n-1,2,3\n', 'expected a number above 0'),
    ('parameters,tokens,loss\n1,2,1e-320\n', 'expected a number above 0, from 1e-30 to 1e'),
    ('parameters,tokens,loss\n', 'write a header such as parameters,tokens,loss'),
  ),
  ids=('without tokens', 'without a number', 'long', 'below 0', 'subnormal', 'empty'),
)
def test_rows_that_are_no_runs_are_one_sentence(tmp_path, text, told):
  path = tmp_path / 'runs.csv'
  path.write_text(text)
  with pytest.raises(DataError, match=told):
    read_records(path)


def write_lines(path, *rows):
  path.write_text(''.join(json.dumps(row) + '\n' for row in rows))
  return path


def test_of_rows_of_one_run_the_last_is_its_end(tmp_path):
  row = {'parameters': 10, 'run': 'a'}
  path = write_lines(
    tmp_path / 'runs.jsonl',
    {**row, 'tokens': 30, 'loss': 2.0},
    {**row, 'tokens': 10, 'loss': 3.0},
    {'parameters': 10, 'tokens': 50, 'loss': 1.4},
  )
  found = read_records(path)['']
  assert found.runs.tokens.tolist() == [30, 50] and found.runs.loss.tolist() == [2, 1.4]


def test_flops_that_are_recorded_make_the_budget_and_the_size(tmp_path):
  rows = []
  for compute in np.logspace(18, 21, 5):
    for size in FIRST.optimum(compute).size * np.logspace(-0.6, 0.6, 7):
      tokens = compute / (6 * size)
      loss = float(FIRST.loss(size, tokens))
      # Attention's part: the parameters alone would tell of a smaller budget.
      rows.append({'parameters': 0.7 * size, 'tokens': tokens, 'flops': compute, 'loss': loss})
  found = find_law(read_records(write_lines(tmp_path / 'runs.jsonl', *rows))[''], resamples=10)
  assert [each.compute for each in found.minima] == pytest.approx(np.logspace(18, 21, 5))
  assert found.fit.law.optimum(1e23).size == pytest.approx(FIRST.optimum(1e23).size, rel=1e-6)


def test_of_a_sweep_of_the_learning_rate_the_best_runs_stay(tmp_path):
  rows = [
    {'parameters': size, 'tokens': 100, 'loss': loss, 'learning_rate': rate}
    for size, rate, loss in ((10, 1e-3, 2.0), (10, 1e-3, 2.1), (10, 3e-3, 1.9), (20, 1e-3, 3.0))
  ]
  found = read_records(write_lines(tmp_path / 'runs.jsonl', *rows))['']
  assert found.at_best_rates().runs.loss.tolist() == [1.9, 3.0]


def test_an_arm_is_chosen_by_name(records):
  arms = read_records(records)
  assert choose_arm(arms, 'dit', 'arm') is arms['dit']
  with pytest.raises(ConfigError, match='--arm=: expected one of the arms llama, dit'):
    choose_arm(arms, '', 'arm')


def test_the_commands_fit_predict_and_compare(records):
  def run(command, *words):
    done = binaries.finish('scaling', command, f'--records={records}', '--resamples=20', *words)
    return done.stdout

  told = run('fit', '--arm=llama')
  assert 'alpha' in told and 'N*(C) = ' in told and 'warning: every run is of one seed' in told
  told = run('fit', '--arm=llama', '--hold_out=1')
  assert 'Predicted by the 36 runs of smaller budgets' in told
  assert 'of 9 losses lie in their intervals of 80%' in told
  lines = run('compare', '--first=llama', '--second=dit').splitlines()
  factors = [line.split()[1] for line in lines if 'e+' in line and '[' in line]
  assert len(factors) == 5 and all(abs(float(factor) - 1.3) < 0.1 for factor in factors)
  assert '2 x the size' in run('predict', '--arm=dit', '--compute=1e22')
  done = binaries.run('scaling', 'predict', f'--records={records}', '--arm=dit')
  assert done.returncode == 2 and '--compute is missing' in done.stderr


def test_a_budget_far_beyond_the_runs_is_told_beside_published_laws():
  found = find_law(noisy(FIRST, noise=0.002), resamples=10)
  lines = predict(found, 1e24).splitlines()
  assert lines[-1].startswith('warning: 3.0 decades beyond the largest run')
  # Llama 3 at 1e24 FLOPs: .299 x 1e24^.537 tokens, and C / (6 D) parameters.
  llama = next(line for line in lines if line.startswith('Llama 3'))
  assert llama.split()[3:] == ['7.21e+10', '2.31e+12', 'beyond', 'its', 'budgets']
  for compute in (math.nan, math.inf, 1e308, 0.5):
    with pytest.raises(ConfigError, match=r'FLOPs; expected a number from 1 to 1e\+40'):
      predict(found, compute)


def test_intervals_hold_the_number_and_narrow_with_less_noise():
  found = find_law(noisy(FIRST, noise=0.002), resamples=40)
  for number in found.numbers().values():
    assert number.low <= number.value <= number.high
  sure = find_law(runs(FIRST), resamples=10)
  width = {
    each: found.numbers()['alpha'].high - found.numbers()['alpha'].low
    for each, found in (('noisy', found), ('sure', sure))
  }
  assert width['sure'] < 0.01 * width['noisy']
