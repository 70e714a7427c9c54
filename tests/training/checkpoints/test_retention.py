"""Which checkpoints stay, and as which types and on which fields of a state they come back."""

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mgjax.core.errors import CheckpointError, ConfigError
from mgjax.core.typing import Tree
from mgjax.training.checkpoints.maintenance import list_checkpoints, verify_all
from mgjax.training.checkpoints.manager import Checkpoints
from mgjax.training.checkpoints.orbax_io import Keep, steps_to_keep
from mgjax.training.settings import run_settings
from mgjax.training.state import State
from tests.training.checkpoints.test_manager import (
  assert_same,
  damage,
  make_abstract,
  make_state,
  save,
)

LOSSES = {1: 0.5, 2: 0.1, 3: 0.3, 4: 0.2, 5: float('nan'), 6: None, 7: 0.4}


@pytest.mark.parametrize(
  ('keep', 'stay'),
  [
    (Keep(1, keep_every=3), [3, 6, 7]),
    (Keep(1, keep_best=2), [2, 4, 7]),
    (Keep(2, 5, 1), [2, 5, 6, 7]),
  ],
  ids=str,
)
def test_newest_every_and_best_stay_over_restarts(tmp_path, keep, stay):
  for step in range(1, 8):  # each by a process of its own, as after so many restarts
    with Checkpoints(tmp_path / 'many', keep) as checkpoints:
      checkpoints.save(make_state(step, width=8), {}, LOSSES[step])
  with Checkpoints(tmp_path / 'one', keep) as checkpoints:
    for step in range(1, 8):
      checkpoints.save(make_state(step, width=8), {}, LOSSES[step])
  for name in ('one', 'many'):
    checkpoints = Checkpoints(tmp_path / name)
    assert checkpoints.steps() == stay
    assert [checkpoints.loss_of(step) for step in stay] == list(map(finite, stay))
  assert steps_to_keep(range(1, 8), keep, LOSSES.get if not keep.keep_best else finite) == stay


def finite(step):
  return None if LOSSES[step] is None or np.isnan(LOSSES[step]) else LOSSES[step]


@pytest.mark.parametrize(
  ('train', 'said'),
  [
    ({'keep_best': 1, 'save_every': 3, 'evaluate_every': 2}, '= 3 is no multiple of .* = 2'),
    ({'keep_best': 1, 'save_every': 3, 'evaluate_every': 0}, 'needs the validation loss'),
  ],
)
def test_what_cannot_be_kept_is_an_error(train, said):
  with pytest.raises(ConfigError, match=said):
    run_settings({'steps': 1} | train)
  train = {'keep_best': 1, 'save_every': 4, 'evaluate_every': 2, 'keep_every': 10}
  settings = run_settings({'steps': 1} | train)
  assert (settings.keep, settings.keep_every, settings.keep_best) == (3, 10, 1)


def test_parameters_are_verified_and_then_rounded_to_another_type(tmp_path):
  save(tmp_path, 1, 2)
  halves = lambda x: jax.ShapeDtypeStruct(x.shape, jnp.bfloat16)  # noqa: E731
  target = jax.tree.map(halves, make_state(0).average)
  average, _ = Checkpoints(tmp_path).restore_params(target)
  assert_same(average, jax.tree.map(lambda x: x.astype(jnp.bfloat16), make_state(2).average))
  damage(tmp_path, 2, make_state(2).average['block']['kernel'])
  average, _ = Checkpoints(tmp_path).restore_params(target)
  assert_same(average, jax.tree.map(lambda x: x.astype(jnp.bfloat16), make_state(1).average))
  whole = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, jnp.int32), target)
  with pytest.raises(CheckpointError, match=r'is float32 \(256,\) .* expected int32 \(256,\)'):
    Checkpoints(tmp_path).restore_params(whole)
  with pytest.raises(CheckpointError, match='expected bfloat16'):  # a run keeps its types
    Checkpoints(tmp_path).restore(make_abstract(make_state(0)).replace(average=target))


def test_one_step_is_read_or_none(tmp_path):
  save(tmp_path, 1, 2)
  target = make_abstract(make_state(0).average)
  average, meta = Checkpoints(tmp_path).restore_params(target, step=1)
  assert_same(average, make_state(1).average)
  assert meta == {'config': {'seed': 1}}
  damage(tmp_path, 2, make_state(2).average['block']['kernel'])
  with pytest.raises(CheckpointError, match=r'step 2 in .* is damaged: leaf average/block/kernel'):
    Checkpoints(tmp_path).restore_params(target, step=2)
  with pytest.raises(CheckpointError, match=r'no checkpoint of step 3 in .*; it has \[1, 2\]'):
    Checkpoints(tmp_path).restore_params(target, step=3)


@flax.struct.dataclass
class Later(State):
  """A state as it may be one day, with a field that no checkpoint has yet."""

  tally: Tree = None


def test_fields_that_a_checkpoint_is_too_old_for_begin_at_zero(tmp_path, caplog):
  save(tmp_path, 1)
  fields = {name: getattr(make_state(0), name) for name in State.__dataclass_fields__}
  tally = {'bad': jnp.int32(5), 'norm': jnp.float32(2.0)}
  with Checkpoints(tmp_path) as checkpoints, caplog.at_level('INFO'):
    state, _ = checkpoints.restore(Later(**make_abstract(fields), tally=make_abstract(tally)))
    assert_same(state.params, make_state(1).params)
    assert_same(state.tally, {'bad': jnp.int32(0), 'norm': jnp.float32(0.0)})
    assert 'is of before there was tally, which begins at zero' in caplog.text
    checkpoints.save(state.replace(step=jnp.int32(2), tally=tally), {})
    state, _ = checkpoints.restore(Later(**make_abstract(fields), tally=make_abstract(tally)))
    assert_same(state.tally, tally)


def test_an_old_step_that_was_half_deleted_when_a_run_was_killed_is_no_damage(
  tmp_path, monkeypatch
):
  with monkeypatch.context() as killed:
    killed.setattr('mgjax.training.checkpoints.manager.sweep', lambda *arguments, **options: None)
    save(tmp_path, 1, 2, 3, keep=2)
  (going,) = (tmp_path / 'removed').iterdir()
  assert going.name == '1'  # moved away before anything in it was deleted
  next(path for path in going.rglob('*') if path.is_file()).unlink()
  checkpoints = Checkpoints(tmp_path)
  assert [(seen.name, seen.problem) for seen in list_checkpoints(checkpoints)] == [
    ('2', ''),
    ('3', ''),
  ]
  assert verify_all(checkpoints) == {2: '', 3: ''}
  save(tmp_path, 4, keep=2)
  assert sorted(path.name for path in tmp_path.iterdir()) == ['3', '4']
