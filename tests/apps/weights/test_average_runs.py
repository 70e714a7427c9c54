"""Several finetunes into one work directory that serves as any other."""

import json

import hypothesis
import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mgjax.api import train
from mgjax.apps.weights.average_runs import (
  AverageCandidate,
  Mean,
  Trial,
  average_runs,
  greedy_mean,
  mean_params,
)
from mgjax.core.errors import CheckpointError, ConfigError
from mgjax.core.tree import named_leaves
from mgjax.training.checkpoints.load_params import load_params
from mgjax.training.checkpoints.workdir import open_checkpoints, read_config, write_workdir
from mgjax.training.monitoring.metrics import validation_loss
from tests import tiny

FAR = {'a': 1.0, 'b': -2.0, 'c': 40.0}  # how far each finetune went from where all began


@pytest.fixture(scope='module')
def runs(tiny_runs, tmp_path_factory):
  """Three finetunes a, b and c of the tiny autoencoder: its parameters, moved along one line."""
  place = tmp_path_factory.mktemp('finetunes')
  config = read_config(tiny_runs / 'autoencoder')
  params, meta = load_params(tiny_runs / 'autoencoder')
  numbers = np.random.default_rng(0)
  line = jax.tree.map(lambda p: 0.1 * numbers.normal(size=p.shape).astype(np.float32), params)
  for name, far in FAR.items():
    moved = jax.tree.map(lambda p, along, far=far: np.asarray(p) + far * along, params, line)
    write_workdir(config.to_dict(), moved, meta['notes'], place / name, origin={'order': 'made'})
  return place


def named(runs, names):
  return [AverageCandidate(str(runs / name)) for name in names]


def values(workdir, which='average'):
  leaves = named_leaves(load_params(workdir, which)[0])
  return np.concatenate([np.asarray(leaf, np.float64).ravel() for leaf in leaves.values()])


def test_averages_alike_and_weighted_are_validated_with_their_candidates(runs, tmp_path):
  alike = average_runs(named(runs, 'ab'), tmp_path / 'alike')
  a, b = values(runs / 'a'), values(runs / 'b')
  # The mean is rounded to float32 once, at most half a unit in the last place.
  np.testing.assert_allclose(values(tmp_path / 'alike'), (a + b) / 2, rtol=2**-24, atol=1e-38)
  assert set(alike.losses) == {str(runs / 'a'), str(runs / 'b')}
  assert alike.loss < min(alike.losses.values())  # nearer to where both began than either
  assert set(alike.shares.values()) == {0.5}
  assert open_checkpoints(tmp_path / 'alike').loss_of(0) == alike.loss

  weighted = average_runs(named(runs, 'ab'), tmp_path / 'weighted', weights=[2, 1])
  # 2 x 1 + 1 x -2 = 0 brings back what they came from.
  np.testing.assert_allclose(
    values(tmp_path / 'weighted'), (2 * a + b) / 3, rtol=2**-24, atol=1e-38
  )
  assert weighted.loss < alike.loss
  assert weighted.shares == {str(runs / 'a'): 2 / 3, str(runs / 'b'): 1 / 3}
  assert weighted.losses == alike.losses  # the same batches, noise and times


def test_a_greedy_average_leaves_out_what_spoils_it(runs, tmp_path):
  averaged = average_runs(named(runs, 'cab'), tmp_path / 'greedy', greedy=True)
  a, b, c = (str(runs / name) for name in 'abc')
  assert [(name, taken) for name, _, taken in averaged.trials] == [(a, True), (b, True), (c, False)]
  assert averaged.shares == {a: 0.5, b: 0.5}
  assert averaged.loss < averaged.losses[a] < averaged.losses[b] < averaged.losses[c]
  table = averaged.table().splitlines()
  assert len({len(line) for line in table}) == 1
  assert table[-2].startswith(f'... with {c}') and table[-2].endswith('left out')
  report = json.loads((tmp_path / 'greedy/average.json').read_text())
  assert report['loss'] == averaged.loss and report['losses'] == averaged.losses


def test_an_average_is_where_another_run_may_start(runs, tmp_path):
  average_runs(named(runs, 'ab'), tmp_path / 'average', validate=False)
  config = tiny.autoencoder(start_from=str(tmp_path / 'average'))
  state = train(config, tmp_path / 'run', stop_at=0)
  started, average = named_leaves(state.params), load_params(tmp_path / 'average')[0]
  for name, leaf in named_leaves(average).items():
    np.testing.assert_array_equal(started[name], leaf, err_msg=name)


def test_what_cannot_be_averaged_is_an_error(runs, tiny_runs, tmp_path):
  workdir = tmp_path / 'average'
  for candidates, more, said in (
    ([], {}, 'nothing to average'),
    (named(runs, 'aa'), {}, 'named twice'),
    (named(runs, 'ab'), {'weights': [1.0]}, '1 weights for 2 candidates'),
    (named(runs, 'ab'), {'weights': [1.0, -1.0], 'validate': False}, 'must be above 0'),
    (named(runs, 'ab'), {'weights': [1.0, 1.0], 'greedy': True}, 'none to a greedy average'),
    (named(runs, 'ab'), {'greedy': True, 'validate': False}, 'needs validation'),
    (
      [*named(runs, 'a'), AverageCandidate(str(tiny_runs / 'video'))],
      {},
      'not of the same model: component',
    ),
    ([*named(runs, 'a'), AverageCandidate(str(tmp_path))], {}, 'is not a work directory'),
  ):
    with pytest.raises(ConfigError, match=said):
      average_runs(candidates, workdir, **more)
    assert not workdir.exists() or not open_checkpoints(workdir).begun()
  with pytest.raises(ConfigError, match='is in use; take another --workdir'):
    average_runs(named(runs, 'ab'), runs / 'c')
  with pytest.raises(CheckpointError, match=r'no checkpoint of step 7 in .*; it has \[0\]'):
    average_runs([AverageCandidate(str(runs / 'a'), 7)], workdir)


@pytest.mark.parametrize(
  'component',
  [
    'video',
    *(pytest.param(each, marks=pytest.mark.slow) for each in ('autoencoder', 'codec', 'audio')),
  ],
)
def test_an_average_of_one_run_is_that_run(request, tmp_path, component):
  runs = 'tiny_sound_runs' if component in ('codec', 'audio') else 'tiny_runs'
  workdir, out = request.getfixturevalue(runs) / component, tmp_path / 'average'
  loss = average_runs([AverageCandidate(str(workdir))], out, greedy=True).loss
  # The run validated the same numbers with the same batches, noise and times when it ended.
  rows = [row for row in tiny.metrics(workdir) if any(name.endswith('/loss') for name in row)]
  assert loss == pytest.approx(validation_loss(rows[-1]), rel=1e-6)
  np.testing.assert_array_equal(values(out), values(workdir))
  np.testing.assert_array_equal(values(out, 'params'), values(workdir))


def tree(value, dtype=jnp.float32):
  return {'block': {'kernel': jnp.full((2, 3), value, dtype)}, 'bias': jnp.full(4, value, dtype)}


def test_a_mean_is_weighted():
  for weights, mean in (([2, 1, 1], 2.5), ([1, 1, 1], 3.0)):
    found = mean_params(map(tree, (1.0, 2.0, 6.0)), weights)
    assert found['block']['kernel'].shape == (2, 3) and found['bias'].tolist() == [mean] * 4


def test_many_models_cost_no_bits():
  numbers = np.random.default_rng(0).normal(size=(64, 500)).astype(np.float32)
  expected = np.mean(numbers.astype(np.float64), axis=0).astype(np.float32)
  mean = mean_params([{'p': row} for row in numbers], [1.0] * 64)
  np.testing.assert_array_equal(mean['p'], expected)
  single = np.mean(numbers, axis=0, dtype=np.float32)
  assert np.any(single != expected)  # as a sum in float32 would


def test_half_precision_becomes_single():
  mean = mean_params([tree(1.0, jnp.bfloat16), tree(1.0 + 2**-7, jnp.bfloat16)], [1, 1])
  assert mean['bias'].dtype == np.float32
  assert mean['bias'].tolist() == [1.0 + 2**-8] * 4  # bfloat16 has no such number


def test_a_mean_that_grows_leaves_the_smaller_one_alone():
  one = Mean().plus(tree(1.0))
  assert one.plus(tree(3.0)).value()['bias'].tolist() == [2.0] * 4
  assert one.value()['bias'].tolist() == [1.0] * 4


def distance(goal):
  """A loss: how far all numbers are from where they should be."""
  return lambda params: float(abs(params['bias'][0] - goal))


def greedy(values, goal):
  losses, asked = [abs(value - goal) for value in values], []

  def load(index):
    asked.append(index)
    return tree(values[index])

  mean, trials = greedy_mean(losses, load, distance(goal))
  assert sorted(asked) == list(range(len(values)))
  return float(mean['bias'][0]), trials


def test_greedy_takes_what_lowers_the_loss_alone():
  # 1 alone is nearest to 0; with -2 the mean is nearer, -0.5; 10 would pull it away.
  mean, trials = greedy([10.0, -2.0, 1.0], 0.0)
  assert mean == -0.5
  assert trials == [Trial(2, 1.0, True), Trial(1, 0.5, True), Trial(0, 3.0, False)]


@hypothesis.given(st.lists(st.integers(-100, 100), min_size=1, max_size=6), st.integers(-50, 50))
def test_greedy_is_never_worse_than_the_best_alone(values, goal):
  mean, trials = greedy(list(map(float, values)), float(goal))
  best = min(abs(value - goal) for value in values)
  found = [trial.loss for trial in trials if trial.taken]
  assert found == sorted(found, reverse=True) and found[0] == best
  assert abs(mean - goal) == pytest.approx(found[-1], abs=1e-4)


def test_greedy_leaves_out_what_is_no_number():
  nan = float('nan')
  mean, trials = greedy_mean([nan, 2.0, 1.0], lambda index: tree(float(index)), lambda p: nan)
  assert float(mean['bias'][0]) == 2.0
  assert [(trial.index, trial.taken) for trial in trials] == [(2, True), (1, False)]
  with pytest.raises(ConfigError, match='no model to average has a finite validation loss'):
    greedy_mean([nan, float('inf')], tree, distance(0))
