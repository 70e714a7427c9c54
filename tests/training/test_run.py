"""Runs of a tiny model: stopped, killed, resumed, refused; they all end the same, bit by bit."""

import json
import os
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mgjax.api import train
from mgjax.apps.encode import encode
from mgjax.core.errors import ConfigError, DataError, NonFiniteError
from mgjax.data.batch_order import make_batches
from mgjax.data.records.reader import Records
from mgjax.parallel.mesh import make_mesh
from mgjax.registry import make_spec
from mgjax.training.checkpoints.manager import Checkpoints
from mgjax.training.checkpoints.workdir import read_config
from mgjax.training.validation import make_evaluate
from tests import tiny

# The default configuration has all devices on `data`: with the eight of the tests, every batch here
# is split over eight devices. What a run may change does not depend on that.


def checkpoints(workdir):
  return sorted(int(path.name) for path in (workdir / 'checkpoints').iterdir())


def test_stopped_after_any_step_a_run_ends_as_if_undisturbed(tiny_runs, tmp_path):
  config = tiny.video(tiny_runs, images=True)
  # Checkpoints are due after 3 and 6: after the first step, and one step later than a checkpoint.
  for stop in (1, 4):
    state = train(config, tmp_path / 'stopped', stop_at=stop)
    assert int(state.step) == stop == checkpoints(tmp_path / 'stopped')[-1]
  state = train(config, tmp_path / 'stopped')
  tiny.same_state(state, tiny.final_state(tiny_runs / 'video'))
  # Every loss of every step too: hence the same data, in the same order, under the same noise.
  assert tiny.losses(tmp_path / 'stopped') == tiny.losses(tiny_runs / 'video')
  assert len(tiny.losses(tmp_path / 'stopped')) == config.train.steps


def test_a_bucket_whose_every_shard_is_lost_is_left_out_if_asked_for(tiny_runs, tmp_path, caplog):
  shutil.copytree(tiny_runs / 'latents', tmp_path / 'latents')
  config = tiny.video(tiny_runs, images=True, data__latents=str(tmp_path / 'latents'))
  with config.unlocked():
    config.data.skip_missing = True

  def lose(name):
    for shard in (tmp_path / 'latents' / 'train' / name).glob('*.arrayrecord'):
      shard.unlink()

  lose('image')
  assert [bucket.name for bucket in make_spec(config, tmp_path).buckets] == ['video']
  assert 'the bucket image has no samples left' in caplog.text
  lose('video')
  with pytest.raises(DataError, match='no bucket has a sample'):
    make_spec(config, tmp_path)


def test_a_finished_run_does_nothing_more(tiny_runs):
  workdir = tiny_runs / 'video'
  before = {path: path.stat().st_mtime_ns for path in (workdir / 'checkpoints').rglob('*')}
  tiny.final_state(workdir)
  assert before == {p: p.stat().st_mtime_ns for p in (workdir / 'checkpoints').rglob('*')}


def test_a_changed_configuration_is_refused_by_name(tiny_runs):
  with pytest.raises(ConfigError, match=r'begun with another.*model\.depth: 1 -> 2; take another'):
    train(tiny.video(tiny_runs, images=True, model__depth=2), tiny_runs / 'video')
  with pytest.raises(ConfigError, match=r"data\.latents: 'read' -> 'encoded on the fly'"):
    train(tiny.video(tiny_runs, latents=False, images=True), tiny_runs / 'video')
  with pytest.raises(ConfigError, match=r'optimizer\.learning_rate: .*seed: 0 -> 1'):
    changes = {'optimizer__learning_rate': 1.0, 'seed': 1}
    train(tiny.video(tiny_runs, images=True, **changes), tiny_runs / 'video')


@pytest.mark.usefixtures('on_one_device_here')
def test_a_run_at_a_constant_rate_may_be_made_longer_and_no_other(tiny_runs, tmp_path):
  def config(steps):
    constant = {'optimizer__schedule': 'constant', 'optimizer__warmup': 1}
    config = tiny.video(tiny_runs, **constant, train__steps=steps, train__evaluate_every=0)
    return config

  train(config(2), tmp_path / 'longer')
  longer = train(config(4), tmp_path / 'longer', stop_at=3)
  tiny.same_state(longer, train(config(4), tmp_path / 'whole', stop_at=3))
  with pytest.raises(
    ConfigError, match=r'train\.steps: 8 -> 9.*--new_rate; .*with --config\.start_from='
  ):
    train(tiny.video(tiny_runs, images=True, train__steps=9), tiny_runs / 'video')


def test_how_a_run_reports_and_where_things_lie_may_change(tiny_runs, tmp_path):
  moved = shutil.copytree(tiny_runs, tmp_path / 'moved')
  changes = {'train__log_every': 2, 'train__save_every': 100, 'data__threads': 2}
  state = train(tiny.video(moved, images=True, **changes), moved / 'video')
  tiny.same_state(state, tiny.final_state(tiny_runs / 'video'))
  assert json.loads((moved / 'video/config.json').read_text())['autoencoder'].startswith(str(moved))


def test_before_the_first_checkpoint_a_configuration_may_be_corrected(tiny_runs, tmp_path):
  with pytest.raises(DataError):
    train(tiny.video(tmp_path / 'nowhere', autoencoder=str(tiny_runs / 'autoencoder')), tmp_path)
  train(tiny.video(tiny_runs), tmp_path, stop_at=0)
  assert json.loads((tmp_path / 'config.json').read_text())['data']['latents'].startswith(
    str(tiny_runs)
  )


def test_other_data_under_the_same_name_are_refused(tiny_runs, tmp_path):
  moved = shutil.copytree(tiny_runs, tmp_path / 'moved')
  shutil.rmtree(moved / 'latents')
  encode(tiny.video(moved, images=True, encode__train=40), moved / 'latents')
  with pytest.raises(ConfigError, match=r'the data have changed.*--new_data'):
    train(tiny.video(moved, images=True, encode__train=48), moved / 'video')


@pytest.mark.usefixtures('on_one_device_here')
def test_with_new_data_their_order_begins_at_the_step_of_the_checkpoint(tiny_runs, tmp_path):
  # It ends before step 4, of the first validation.
  second = tiny.video(tiny_runs, images=True, buckets__video__weight=1, data__share='samples')
  train(tiny.video(tiny_runs, images=True), tmp_path / 'a', stop_at=1)
  with pytest.raises(ConfigError, match=r'buckets\.video\.weight'):
    train(second, tmp_path / 'a')
  shutil.copytree(tmp_path / 'a', tmp_path / 'b')
  train(second, tmp_path / 'a', stop_at=2, new_data=True)
  state = train(second, tmp_path / 'a', stop_at=3)  # from then on the new data are the run's own
  tiny.same_state(state, train(second, tmp_path / 'b', stop_at=3, new_data=True))
  with Checkpoints(tmp_path / 'a' / 'checkpoints') as saved:
    _, meta = saved.restore(jax.eval_shape(lambda: state))
  assert [step for step, _ in meta['orders']] == [0, 1]
  assert len({name for _, name in meta['orders']}) == 2


CONSTANT = {'optimizer__schedule': 'constant', 'optimizer__warmup': 1, 'train__evaluate_every': 0}


@pytest.mark.usefixtures('on_one_device_here')
def test_with_a_new_rate_a_run_goes_on_with_its_moments(tiny_runs, tmp_path):
  first = tiny.video(tiny_runs, **CONSTANT, optimizer__learning_rate=1e-3)
  tenth = tiny.video(tiny_runs, **CONSTANT, optimizer__learning_rate=1e-4)
  before = train(first, tmp_path / 'run', stop_at=2)
  shutil.copytree(tmp_path / 'run', tmp_path / 'same')
  with pytest.raises(
    ConfigError, match=r'learning_rate: 0\.001 -> 0\.0001.*moments by.*--new_rate;'
  ):
    train(tenth, tmp_path / 'run')
  same = train(first, tmp_path / 'same', stop_at=3)
  after = train(tenth, tmp_path / 'run', stop_at=3, new_rate=True)
  # The same gradient after the same moments: all that differs is how far the step goes.
  tiny.same_state(after.opt_state, same.opt_state)
  moved, whole = (
    np.concatenate(
      [
        (np.asarray(new, np.float64) - np.asarray(old, np.float64)).ravel()
        for new, old in zip(*map(jax.tree.leaves, (state.params, before.params)), strict=True)
      ]
    )
    for state in (after, same)
  )
  np.testing.assert_allclose(moved, whole / 10, atol=2e-7)
  train(tenth, tmp_path / 'run', stop_at=4)  # from then on the new rate is the run's own
  with pytest.raises(
    ConfigError, match=r"run' has reached step 4, and train\.steps = 3 are behind"
  ):
    train(tiny.video(tiny_runs, **CONSTANT, train__steps=3), tmp_path / 'run', new_rate=True)
  assert json.loads((tmp_path / 'run/config.json').read_text())['train']['steps'] == 8
  rates = [row['learning_rate'] for row in tiny.metrics(tmp_path / 'run') if 'loss' in row]
  np.testing.assert_allclose(rates, [1e-3, 1e-3, 1e-4, 1e-4], rtol=1e-6)


@pytest.mark.parametrize(
  ('change', 'flags'),
  [
    ({'buckets__video__batch_size': 16}, '--new_data;'),
    ({'optimizer__final_fraction': 0.5, 'train__steps': 20}, '--new_rate;'),
    ({'optimizer__weight_decay': 0.0, 'buckets__video__weight': 5}, '--new_data --new_rate;'),
    ({'optimizer__name': 'muon'}, None),  # whose moments are others
    ({'optimizer__plateau__patience': 2}, None),
    ({'optimizer__rates': (('.*', 0.0),)}, None),
    ({'model__dim': 32, 'optimizer__learning_rate': 1.0}, None),
  ],
)
def test_a_refusal_names_the_flags_that_let_a_run_go_on(tiny_runs, change, flags):
  with pytest.raises(ConfigError) as refused:
    train(tiny.video(tiny_runs, images=True, **change), tiny_runs / 'video')
  said = str(refused.value)
  assert f'--config.start_from={tiny_runs / "video"}' in said
  assert f'by launch.train {flags}' in said if flags else '--new' not in said


@pytest.mark.usefixtures('on_one_device_here')
def test_a_new_rate_is_not_lowered_by_stalls_of_the_rate_before(tiny_runs, tmp_path):
  # Nothing is ever better by 90 %: the rate falls after step 2.
  stalls = {'patience': 1, 'factor': 0.5, 'improvement': 0.9}
  plateau = {f'optimizer__plateau__{name}': value for name, value in stalls.items()}
  plateau |= CONSTANT | {'train__evaluate_every': 1}

  def config(rate, **changes):
    return tiny.video(tiny_runs, **plateau, optimizer__learning_rate=rate, **changes)

  train(config(2.0**-10), tmp_path, stop_at=3)
  train(config(2.0**-11, train__steps=9), tmp_path, stop_at=4, new_rate=True)
  rates = [row['learning_rate'] for row in tiny.metrics(tmp_path) if 'loss' in row]
  assert [rate * 2**10 for rate in rates] == [1, 1, 0.5, 0.5]


def test_another_autoencoder_is_refused(tiny_runs, tmp_path):
  other = str(tiny.make_another_autoencoder(tiny_runs, tmp_path / 'autoencoder'))
  with pytest.raises(DataError, match='are of another autoencoder'):
    train(tiny.video(tiny_runs, autoencoder=other), tmp_path / 'video')
  with pytest.raises(ConfigError, match=r'begun with other values: meta\.autoencoder.*\.mean'):
    encode(tiny.video(tiny_runs, images=True, autoencoder=other), tiny_runs / 'latents')


@pytest.mark.slow
def test_on_the_fly_too_another_autoencoder_is_refused(tiny_runs, tmp_path):
  tiny.make_another_autoencoder(tiny_runs, tmp_path / 'autoencoder')
  # On the fly there are no stored latents to compare with; the checkpoint remembers.
  fly = tiny.video(tiny_runs, latents=False)
  train(fly, tmp_path / 'fly', stop_at=1)
  fly.autoencoder = str(tmp_path / 'autoencoder')
  with pytest.raises(ConfigError, match='is not the one that this run learned'):
    train(fly, tmp_path / 'fly')


@pytest.mark.usefixtures('on_one_device_here')
def test_a_loss_that_is_not_finite_ends_the_run_before_it_is_saved(tiny_runs, tmp_path):
  # Logged every 100 steps: the check must not wait for a line of metrics.
  config = tiny.video(
    tiny_runs, optimizer__learning_rate=1e30, train__log_every=100, train__evaluate_every=0
  )
  with pytest.raises(NonFiniteError, match=r'of step \d.*checkpoints hold earlier steps only'):
    train(config, tmp_path)
  saved = tmp_path / 'checkpoints'
  assert not saved.exists() or not checkpoints(tmp_path)
  assert NonFiniteError.exit_code == 4


def test_images_and_videos_come_in_the_configured_ratio(tiny_runs, tmp_path):
  spec = make_spec(tiny.video(tiny_runs, images=True), tmp_path)
  batches = make_batches(spec.buckets, seed=0)
  frames = [batches[step]['latents'].shape[1] for step in range(12)]
  assert frames.count(2) == 8 and frames.count(1) == 4  # 2 to 1; four frames make two of latents
  assert [frames[at : at + 3].count(1) for at in (0, 3, 6, 9)] == [1] * 4


def test_latents_read_and_encoded_on_the_fly_make_the_same_batch(tiny_runs, tmp_path):
  stored, fly = (
    make_spec(tiny.video(tiny_runs, latents=latents, images=True), tmp_path)
    for latents in (True, False)
  )
  for one, other in zip(stored.validation, fly.validation, strict=True):
    batches = []
    for spec, bucket in ((stored, one), (fly, other)):
      rows = [bucket.transform(bucket.source[index]) for index in range(8)]
      batches.append(spec.prepare(jax.tree.map(lambda *x: jnp.stack(x), *rows)))
    assert batches[0].keys() == batches[1].keys() == {'latents', 'text'}
    np.testing.assert_array_equal(batches[0]['text'], batches[1]['text'])
    # Half a unit in the last of bfloat16's eight bits.
    np.testing.assert_allclose(
      np.asarray(batches[0]['latents'], np.float32),
      np.asarray(batches[1]['latents'], np.float32),
      rtol=2**-8 + 1e-5,
      atol=1e-5,
    )


def test_validation_repeats_exactly(tiny_runs):
  config = tiny.video(tiny_runs, images=True)
  spec = make_spec(config, tiny_runs / 'video')
  state = tiny.final_state(tiny_runs / 'video')
  mesh = make_mesh(config.mesh.to_dict(), config.rules)
  evaluate = make_evaluate(spec, mesh, batches=config.train.validation_batches)
  with jax.set_mesh(mesh):
    first, second = evaluate(state.average), evaluate(state.average)
  last = tiny.losses(tiny_runs / 'video')[8]
  assert first == second == {k: v for k, v in last.items() if k.startswith('validation/')}


def test_micro_batches_that_groups_of_devices_cannot_share_are_refused(tiny_runs, tmp_path):
  refused = 'batch of 8 of bucket .* into 2 micro-batch.* over 8 group.* take a batch size of 16'
  with pytest.raises(ConfigError, match=refused):
    train(tiny.video(tiny_runs, train__accumulate=2), tmp_path)


@pytest.mark.slow
def test_a_model_starts_from_another_with_grown_positions(tiny_runs, tmp_path):
  start = {'start_from': str(tiny_runs / 'video')}
  config = tiny.video(tiny_runs, model__positions=(4, 2, 2), **start)
  train(config, tmp_path / 'grown', stop_at=1)
  before, after = (read_config(path) for path in (tiny_runs / 'video', tmp_path / 'grown'))
  assert (before.model.positions[0], after.model.positions[0]) == (2, 4)
  with pytest.raises(ConfigError, match=r'does not fit this model: .* is \(.*16.*\) there'):
    train(tiny.video(tiny_runs, model__dim=32, **start), tmp_path / 'wider')
  start['start_from'] = str(tiny_runs / 'autoencoder')
  with pytest.raises(ConfigError, match="trained 'autoencoder', not a video model"):
    train(tiny.video(tiny_runs, **start), tmp_path / 'other')


def test_encoding_goes_on_where_it_was_killed(tiny_runs, tmp_path, monkeypatch):
  monkeypatch.setattr('mgjax.apps.encode.ROWS_PER_SHARD', 16)
  written = []

  def die_after_two(self, index, rows, notes=None):
    if len(written) == 2:
      raise KeyboardInterrupt
    written.append(index)
    return write(self, index, rows, notes)

  from mgjax.data.records.reader import RecordWriter

  write = RecordWriter.write_shard
  with monkeypatch.context() as patched:
    patched.setattr(RecordWriter, 'write_shard', die_after_two)
    with pytest.raises(KeyboardInterrupt):
      encode(tiny.video(tiny_runs), tmp_path)
  kept = {p: p.stat().st_mtime_ns for p in tmp_path.rglob('*.arrayrecord')}
  assert len(kept) == 2
  with pytest.raises(DataError, match='unfinished'):
    train(tiny.video(tiny_runs, data__latents=str(tmp_path)), tmp_path / 'video')
  encode(tiny.video(tiny_runs), tmp_path)
  assert all(path.stat().st_mtime_ns == when for path, when in kept.items())
  whole = Records(tiny_runs / 'latents' / 'train' / 'video')
  again = Records(tmp_path / 'train' / 'video')
  assert len(again) == len(whole) == 48
  for index in range(48):
    assert again[index]['caption'] == whole[index]['caption']
    np.testing.assert_array_equal(again[index]['latents'], whole[index]['latents'])


def test_a_run_shows_what_it_learns(tiny_runs):
  directory = tiny_runs / 'video' / 'samples' / f'step_{tiny.SHARED["train.steps"]:06d}'
  assert (directory / 'samples.png').stat().st_size > 1000
  assert len(list(directory.glob('*.mp4'))) == 8
  assert list((tiny_runs / 'autoencoder' / 'samples').rglob('reconstruction.png'))


def test_a_run_says_what_it_was(tiny_runs):
  about = json.loads((tiny_runs / 'video' / 'run.json').read_text())
  assert about['command'] and about['versions'].keys() > {'mgjax', 'jax', 'python'}
  config = read_config(tiny_runs / 'video')
  assert config.to_dict().keys() == tiny.video(tiny_runs).to_dict().keys()
  assert config.train.to_dict() == json.loads(json.dumps(tiny.video(tiny_runs).train.to_dict()))
  assert os.path.exists(tiny_runs / 'video' / 'parameters.json')
