"""Checkpoints looked at, verified and cleared away: what is damaged is told, what is good stays."""

import re
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mgjax.core.errors import CheckpointError
from mgjax.training.checkpoints import orbax_io
from mgjax.training.checkpoints.maintenance import (
  list_checkpoints,
  plan_pruning,
  remove,
  verify_all,
)
from mgjax.training.checkpoints.manager import Checkpoints
from mgjax.training.checkpoints.orbax_io import Keep
from tests.training.checkpoints.test_manager import damage, make_abstract, make_state

# What orbax had begun when a file failed it is collected later.
pytestmark = pytest.mark.filterwarnings('ignore::pytest.PytestUnraisableExceptionWarning')

LOSSES = {1: 0.5, 2: 0.1, 3: 0.3, 4: 0.2}


@pytest.fixture(scope='module')
def whole(tmp_path_factory):
  """Checkpoints of steps 1 to 4 with losses, that nobody may change."""
  directory = tmp_path_factory.mktemp('care') / 'whole'
  with Checkpoints(directory, Keep(4)) as checkpoints:
    for step, loss in LOSSES.items():
      checkpoints.save(make_state(step), {}, loss)
  return directory


@pytest.fixture
def directory(whole, tmp_path):
  shutil.copytree(whole, tmp_path / 'run')
  return tmp_path / 'run'


def cut(directory, step, item):
  """Takes the files with most of an item's numbers away; orbax may leave two copies of them."""
  files = [path for path in (directory / str(step) / item).rglob('*') if path.is_file()]
  sizes = {path: path.stat().st_size for path in files}
  for path in files:
    if sizes[path] > max(sizes.values()) / 2:
      path.unlink()


def test_a_look_says_what_is_there_and_what_is_cut(directory):
  (directory / '1').rename(directory / '1.corrupt')
  cut(directory, 2, 'opt_state')
  shutil.rmtree(directory / '3' / 'meta')
  two, three, four, aside = list_checkpoints(Checkpoints(directory))
  assert (four.name, four.loss, four.problem) == ('4', 0.2, '')
  stats = [path.stat() for path in (directory / '4').rglob('*') if path.is_file()]
  assert four.size == sum(stat.st_size for stat in stats)
  assert four.written == pytest.approx(max(stat.st_mtime for stat in stats), abs=1)
  assert re.match(r'opt_state has \d+ bytes for leaves of \d+$', two.problem)
  assert three.problem and three.loss is None
  assert (aside.name, aside.problem) == ('1.corrupt', 'set aside as damaged')


def test_zeros_are_no_damage(tmp_path):
  state = jax.tree.map(jnp.zeros_like, make_state(0, width=4096))
  with Checkpoints(tmp_path) as checkpoints:
    checkpoints.save(state, {})
    (seen,) = list_checkpoints(checkpoints)
    assert (seen.problem, seen.loss) == ('', None)
    assert verify_all(checkpoints) == {0: ''}


def test_verification_reads_every_item_and_names_the_leaf(directory, monkeypatch):
  damage(directory, 2, make_state(2).average['block']['kernel'])
  damage(directory, 3, make_state(3).opt_state[1][0].mu['block']['kernel'])
  heard = []
  found = verify_all(Checkpoints(directory), report=lambda step, problem: heard.append(step))
  assert heard == [1, 2, 3, 4]
  assert found[1] == found[4] == ''
  assert found[2].startswith('leaf average/block/kernel has fingerprint 0x')
  assert found[3].startswith('leaf opt_state/1/0/mu/block/kernel has fingerprint 0x')
  monkeypatch.setattr(orbax_io, '_PORTION', 1)  # one leaf at a time
  assert verify_all(Checkpoints(directory)) == found
  assert verify_all(Checkpoints(directory), [4]) == {4: ''}
  with pytest.raises(CheckpointError, match=r'no checkpoint of step 9 .* it has \[1, 2, 3, 4\]'):
    verify_all(Checkpoints(directory), [9])


def test_what_another_run_saved_is_told(tmp_path):
  """Its rates and data may be others: a run changes these as it goes on."""
  config = {'seed': 0, 'optimizer': {'learning_rate': 0.1}, 'data': {'path': 'a'}}
  later = config | {'optimizer': {'learning_rate': 0.2}, 'data': {'path': 'b'}}
  with Checkpoints(tmp_path, Keep(4)) as checkpoints:
    for step, saved in enumerate((config, later, config | {'seed': 1}), 1):
      checkpoints.save(make_state(step), {'config': saved})
    assert not any(verify_all(checkpoints).values())
    found = verify_all(checkpoints, config=later)
  assert found == {1: '', 2: '', 3: 'another run saved it (seed: 1 -> 0); take its folder away'}


def test_pruning_keeps_what_a_run_would_keep(directory):
  checkpoints = Checkpoints(directory)
  plan = plan_pruning(checkpoints, Keep(1, keep_best=2))
  assert (plan.remove, plan.stay, plan.damaged) == (['1', '3'], [2, 4], {})
  assert plan_pruning(checkpoints, Keep(1, keep_every=3)).stay == [3, 4]
  assert checkpoints.steps() == [1, 2, 3, 4]  # a plan alone removes nothing
  for name in plan.remove:
    remove(checkpoints, name)
  assert sorted(path.name for path in directory.iterdir()) == ['2', '4']


def test_pruning_counts_from_the_newest_that_is_good(directory):
  damage(directory, 4, make_state(4).params['block']['kernel'])
  (directory / '1').rename(directory / '1.corrupt')
  plan = plan_pruning(Checkpoints(directory), Keep(1))
  assert (plan.remove, plan.stay, list(plan.damaged)) == (['2'], [3], [4])
  assert plan_pruning(Checkpoints(directory), Keep(1), set_aside=True).remove == ['2', '1.corrupt']
  for step in (2, 3):
    damage(directory, step, make_state(step).params['block']['kernel'])
  with pytest.raises(CheckpointError, match=r'is good \(steps \[2, 3, 4\]\), so none is removed'):
    plan_pruning(Checkpoints(directory), Keep(1))


def test_an_interrupted_removal_leaves_no_step_and_goes_on(directory, monkeypatch):
  checkpoints, path = Checkpoints(directory), type(Checkpoints(directory).directory)
  with monkeypatch.context() as patch:
    patch.setattr(path, 'rmtree', lambda self: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
      remove(checkpoints, '2')
  assert checkpoints.steps() == [1, 3, 4]
  assert [seen.name for seen in list_checkpoints(checkpoints)] == ['1', '3', '4']
  remove(checkpoints, '1')  # which clears away what is left of the other one
  assert sorted(path.name for path in directory.iterdir()) == ['3', '4']
  state, _ = checkpoints.restore(make_abstract(make_state(0)))
  assert np.array_equal(state.params['half'], make_state(4).params['half'])


def test_nothing_there_is_an_error(tmp_path):
  for ask in (list_checkpoints, verify_all, lambda it: plan_pruning(it, Keep(1))):
    with pytest.raises(CheckpointError, match=r'no checkpoint in .*; train first'):
      ask(Checkpoints(tmp_path / 'none'))
