"""Checkpoints: what comes back is what was saved, or the user hears of it."""

import logging
import shutil

import hypothesis
import hypothesis.extra.numpy
import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.experimental import multihost_utils
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from mgjax.core.errors import CheckpointError
from mgjax.training.checkpoints import manager
from mgjax.training.checkpoints.fingerprints import describe_leaves, fingerprint
from mgjax.training.checkpoints.manager import Checkpoints
from mgjax.training.state import State

OPTIMIZER = optax.chain(optax.clip_by_global_norm(1.0), optax.adamw(1e-3))


def make_state(step: int, width: int = 256) -> State:
  """A state of random numbers of every kind a run holds; another one at each step."""
  numbers = np.random.default_rng(step)

  def fill(x):
    values = numbers.integers(100, size=x.shape) if x.dtype == jnp.int32 else None
    return jnp.asarray(numbers.normal(size=x.shape) if values is None else values, x.dtype)

  sizes = {'kernel': (8, width), 'bias': (width,)}
  params = {
    'block': {name: jax.ShapeDtypeStruct(shape, jnp.float32) for name, shape in sizes.items()},
    'half': jax.ShapeDtypeStruct((24,), jnp.bfloat16),
  }
  abstract = State(
    step=jnp.int32(step),
    params=params,
    opt_state=jax.eval_shape(OPTIMIZER.init, params),
    average=jax.tree.map(lambda p: jax.ShapeDtypeStruct(p.shape, jnp.float32), params),
  )
  return jax.tree.map(fill, abstract).replace(step=abstract.step)


def make_abstract(tree, shardings=None):
  if shardings is None:
    return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), tree)
  return jax.tree.map(
    lambda x, s: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=s), tree, shardings
  )


def save(directory, *steps: int, keep: int = 3) -> None:
  with Checkpoints(directory, keep) as checkpoints:
    for step in steps:
      checkpoints.save(make_state(step), {'config': {'seed': step}})


def damage(directory, step: int, leaf: jax.Array) -> None:
  """Flips one bit among the numbers of a leaf, wherever a file of the checkpoint has them."""
  numbers, hits = np.asarray(leaf).tobytes(), 0
  for path in (directory / str(step)).rglob('*'):
    data = bytearray(path.read_bytes()) if path.is_file() else bytearray()
    place = data.find(numbers)
    if place >= 0:
      data[place + len(numbers) // 2] ^= 1
      path.write_bytes(data)
      hits += 1
  assert hits


def swap_values(directory, step: int, item: str) -> None:
  """Replaces an item by one that reads without any error and holds other numbers."""
  other = directory.parent / f'other-{step}'
  save(other, 1000)
  shutil.rmtree(directory / str(step) / item)
  shutil.copytree(other / '1000' / item, directory / str(step) / item)


def assert_same(given, expected) -> None:
  assert jax.tree.structure(given) == jax.tree.structure(expected)
  for x, y in zip(jax.tree.leaves(given), jax.tree.leaves(expected), strict=True):
    assert x.dtype == y.dtype
    assert np.asarray(x).tobytes() == np.asarray(y).tobytes()


def test_restored_state_is_bit_exact_with_its_types(tmp_path):
  state = make_state(0)
  meta = {'config': {'depth': 2, 'rate': 1e-4}, 'seed': 7, 'names': ['a'], 'none': None}
  with Checkpoints(tmp_path / 'run') as checkpoints:
    assert checkpoints.save(state, meta)
    checkpoints.wait()
    restored, restored_meta = checkpoints.restore(make_abstract(state))
  assert_same(restored, state)
  assert restored_meta == meta
  assert isinstance(restored.opt_state[1][0], optax.ScaleByAdamState)
  assert restored.opt_state[1][0].count.dtype == jnp.int32


def test_state_may_be_donated_while_it_is_written(tmp_path):
  state, expected = make_state(4), make_state(4)
  wipe = jax.jit(lambda tree: jax.tree.map(jnp.zeros_like, tree), donate_argnums=0)
  with Checkpoints(tmp_path) as checkpoints:
    checkpoints.save(state, {})
    jax.block_until_ready(wipe(state))
    restored, _ = checkpoints.restore(make_abstract(expected))
  assert_same(restored, expected)


def test_newest_are_kept_and_a_step_is_saved_once(tmp_path):
  save(tmp_path, 0, 1, 2, 3, keep=2)
  with Checkpoints(tmp_path, keep=2) as checkpoints:
    assert checkpoints.steps() == [2, 3]
    assert not checkpoints.save(make_state(3), {})
    with pytest.raises(CheckpointError, match='step 1 is older than the newest'):
      checkpoints.save(make_state(1), {})


def test_a_save_does_not_count_as_a_poll_for_signals(tmp_path, monkeypatch):
  polled = []
  monkeypatch.setattr(multihost_utils, 'reached_preemption_sync_point', polled.append)
  with Checkpoints(tmp_path) as checkpoints:
    checkpoints.save(make_state(1), {})
  assert polled == []


def test_a_peer_that_is_lost_during_a_save_is_no_full_disk(tmp_path, monkeypatch):
  def lose(*_):
    raise jax.errors.JaxRuntimeError('UNKNOWN: Gloo AllGather failed: Connection closed by peer')

  monkeypatch.setattr(manager, 'begin_write', lose)
  with pytest.raises(CheckpointError, match='is the disk full'):
    save(tmp_path, 1)
  monkeypatch.setattr(jax.distributed, 'is_initialized', lambda: True)
  with pytest.raises(jax.errors.JaxRuntimeError, match='Gloo'):  # of which launch/ tells another
    save(tmp_path, 2)


def test_nothing_saved_restores_nothing(tmp_path):
  checkpoints = Checkpoints(tmp_path / 'run')
  assert checkpoints.restore(make_abstract(make_state(0))) is None
  assert checkpoints.steps() == []
  assert not (tmp_path / 'run').exists()
  with pytest.raises(CheckpointError, match=r'no checkpoint in .*run; train first'):
    checkpoints.restore_params(make_abstract(make_state(0).params))


def test_items_without_leaves_come_back(tmp_path):
  state = make_state(1).replace(average={}, opt_state=optax.sgd(0.1).init({}))
  with Checkpoints(tmp_path) as checkpoints:
    checkpoints.save(state, {})
    restored, _ = checkpoints.restore(make_abstract(state))
  assert_same(restored, state)


def test_other_numbers_fall_back_to_the_step_before_and_are_named(tmp_path, caplog):
  save(tmp_path, 1, 2)
  swap_values(tmp_path, 2, 'opt_state')
  with Checkpoints(tmp_path) as checkpoints, caplog.at_level(logging.WARNING):
    restored, meta = checkpoints.restore(make_state(0))  # arrays serve as abstract state
    assert_same(restored, make_state(1))
    assert meta == {'config': {'seed': 1}}
    wrong, right = (
      int(jax.jit(fingerprint)(make_state(step).opt_state[1][0].count)) for step in (1000, 2)
    )
    said = f'opt_state/1/0/count has fingerprint {wrong:#010x}, expected {right:#010x}'
    assert 'checkpoint of step 2' in caplog.text and said in caplog.text
    assert (tmp_path / '2.corrupt').is_dir()
    assert checkpoints.steps() == [1]
    assert checkpoints.save(make_state(2), {})  # the run goes on and comes by this step again
    assert checkpoints.steps() == [1, 2]


def damage_meta(directory, step):
  path = directory / str(step) / 'meta' / 'metadata'
  path.write_text(path.read_text().replace('[8, 256]', '[8, 257]', 1))


@pytest.mark.parametrize(
  'break_it',
  [
    lambda directory, step: damage(directory, step, make_state(step).params['block']['kernel']),
    lambda directory, step: shutil.rmtree(directory / str(step) / 'params'),
    lambda directory, step: shutil.rmtree(directory / str(step) / 'meta'),
    lambda directory, step: (directory / str(step) / 'meta' / 'metadata').write_text('{"reco'),
    lambda directory, step: (directory / str(step) / 'params' / '_METADATA').write_text('{'),
    damage_meta,
  ],
  ids=['bit_flipped', 'params_lost', 'meta_lost', 'meta_cut', 'metadata_cut', 'meta_flipped'],
)
def test_lost_or_cut_files_fall_back(tmp_path, break_it):
  save(tmp_path, 1, 2)
  break_it(tmp_path, 2)
  restored, _ = Checkpoints(tmp_path).restore(make_abstract(make_state(0)))
  assert_same(restored, make_state(1))
  assert (tmp_path / '2.corrupt').is_dir()


def test_none_good_is_an_error_and_never_a_fresh_start(tmp_path):
  save(tmp_path, 1, 2)
  swap_values(tmp_path, 1, 'params')
  swap_values(tmp_path, 2, 'params')
  checkpoints = Checkpoints(tmp_path)
  with pytest.raises(CheckpointError, match=r'no checkpoint in .* is good: 2 damaged') as caught:
    checkpoints.restore(make_abstract(make_state(0)))
  assert caught.value.exit_code == 5
  assert checkpoints.steps() == [1, 2]  # nothing to fall back to, so nothing is renamed
  for step in (1, 2):
    (tmp_path / str(step)).rename(tmp_path / f'{step}.corrupt')
  with pytest.raises(CheckpointError, match='2 set aside before'):
    checkpoints.restore(make_abstract(make_state(0)))


def test_other_shape_is_a_changed_config_and_no_damage(tmp_path):
  save(tmp_path, 1, 2)
  expected = r'params/block/bias is float32 \(256,\) in the checkpoint, expected float32 \(8,\)'
  with pytest.raises(CheckpointError, match=expected):
    Checkpoints(tmp_path).restore(make_abstract(make_state(0, width=8)))
  with pytest.raises(CheckpointError, match=expected):
    Checkpoints(tmp_path).restore_params(make_abstract(make_state(0, width=8).params), 'params')
  assert Checkpoints(tmp_path).steps() == [1, 2]


def test_other_leaves_are_a_changed_config(tmp_path):
  save(tmp_path, 1)
  state = make_state(0)
  more = state.replace(params=state.params | {'lora': jnp.zeros(2)})
  with pytest.raises(CheckpointError, match=r'params/lora is no such leaf .* expected float32'):
    Checkpoints(tmp_path).restore(make_abstract(more))
  with pytest.raises(CheckpointError, match=r'average/block/bias is float32 .* no such leaf'):
    Checkpoints(tmp_path).restore(make_abstract(state.replace(average={})))


def test_parameters_are_read_alone(tmp_path):
  save(tmp_path, 1, 2)
  for item in ('params', 'opt_state'):
    shutil.rmtree(tmp_path / '2' / item)
  average, meta = Checkpoints(tmp_path).restore_params(make_abstract(make_state(0).average))
  assert_same(average, make_state(2).average)
  assert meta == {'config': {'seed': 2}}


def test_reading_parameters_falls_back_and_changes_nothing(tmp_path):
  save(tmp_path, 1, 2)
  swap_values(tmp_path, 2, 'params')
  (tmp_path / '3.orbax-checkpoint-tmp').mkdir()  # a save of the live run on its way
  before = sorted(tmp_path.rglob('*'))
  params, _ = Checkpoints(tmp_path).restore_params(make_abstract(make_state(0).params), 'params')
  assert_same(params, make_state(1).params)
  assert sorted(tmp_path.rglob('*')) == before


def test_first_save_clears_what_a_killed_run_left(tmp_path):
  save(tmp_path, 1)
  (tmp_path / '2.orbax-checkpoint-tmp').mkdir()
  save(tmp_path, 3)
  assert not (tmp_path / '2.orbax-checkpoint-tmp').exists()


def test_directory_that_cannot_be_written_is_an_error(tmp_path):
  (tmp_path / 'run').write_text('a file')
  with pytest.raises(CheckpointError, match=r'cannot write a checkpoint to .*run'):
    Checkpoints(tmp_path / 'run' / 'checkpoints').save(make_state(0), {})


def shardings_of(axes: tuple[int, int]) -> list[NamedSharding]:
  mesh = Mesh(np.asarray(jax.devices()).reshape(axes), ('fsdp', 'tensor'))
  specs = [('fsdp', 'tensor'), ('tensor',), (None, ('fsdp', 'tensor')), ()]
  return [NamedSharding(mesh, PartitionSpec(*spec)) for spec in specs]


def test_sharded_state_is_restored_onto_another_sharding(tmp_path):
  def spread(state, axes):
    matrix, *_, replicated = shardings_of(axes)
    return jax.tree.map(lambda x: matrix if x.ndim == 2 else replicated, state)

  state = make_state(5)
  with Checkpoints(tmp_path) as checkpoints:
    checkpoints.save(jax.device_put(state, spread(state, (8, 1))), {})
    target = spread(state, (2, 4))
    restored, _ = checkpoints.restore(make_abstract(state, target))
  assert_same(restored, state)
  same = jax.tree.map(lambda x, s: x.sharding.is_equivalent_to(s, x.ndim), restored, target)
  assert all(jax.tree.leaves(same))


def test_fingerprint_does_not_depend_on_sharding():
  x = jax.random.normal(jax.random.key(1), (16, 32)).astype(jnp.bfloat16)
  expected = int(fingerprint(x))
  for sharding in shardings_of((2, 4)):
    compiled = jax.jit(fingerprint).lower(jax.device_put(x, sharding)).compile()
    assert int(compiled(jax.device_put(x, sharding))) == expected
    assert 'all-gather' not in compiled.as_text()


@pytest.mark.parametrize('dtype', ['float32', 'bfloat16', 'float16', 'int32', 'int8', 'bool'])
@pytest.mark.parametrize('shape', [(), (0,), (3, 4, 5)])
def test_small_leaves_have_the_fingerprint_of_large_ones(shape, dtype):
  x = (50 * jax.random.normal(jax.random.key(2), shape)).astype(dtype)
  for leaf in (x, np.asarray(x), np.asarray(x).T):
    assert describe_leaves([leaf], values=True)['0'][2] == int(fingerprint(jnp.asarray(leaf)))


@hypothesis.settings(deadline=None, max_examples=50)
@hypothesis.given(st.data())
def test_fingerprint_sees_every_single_bit(data):
  dtype = np.dtype(data.draw(st.sampled_from(['float32', 'bfloat16', 'int32', 'int8', 'bool'])))
  shape = data.draw(st.sampled_from([(), (2, 3, 4)]))
  size = int(np.prod(shape)) * dtype.itemsize
  limit = 1 if dtype.kind == 'b' else 255
  words = data.draw(hypothesis.extra.numpy.arrays(np.uint8, size, elements=st.integers(0, limit)))
  flipped = words.copy()
  bit = 0 if dtype.kind == 'b' else data.draw(st.integers(0, 7))
  flipped[data.draw(st.integers(0, size - 1))] ^= np.uint8(1 << bit)
  before, after = (jnp.asarray(w.view(dtype).reshape(shape)) for w in (words, flipped))
  assert int(jax.jit(fingerprint)(before)) != int(jax.jit(fingerprint)(after))


def test_fingerprint_sees_order_and_sign():
  x = jnp.arange(1.0, 9.0)
  changed = [x, x[::-1], -x, jnp.roll(x, 1), x * jnp.asarray([-1.0] * 2 + [1.0] * 6)]
  prints = {int(jax.jit(fingerprint)(y)) for y in changed}
  assert len(prints) == 5
