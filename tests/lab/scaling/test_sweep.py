"""Sweeps: a row of every run, whatever ends the process in between."""

import json
import shutil
import threading
import types

import numpy as np
import pytest
from ml_collections import ConfigDict

from mgjax.core.errors import ConfigError, DataError, NonFiniteError
from mgjax.lab.scaling import sweep
from mgjax.lab.scaling.sweep import FILE, read_rows, run_sweep
from mgjax.lab.statistics.intervals import compare_rows
from mgjax.training.checkpoints.find_run import find_run
from mgjax.training.checkpoints.load_params import load_params
from mgjax.training.checkpoints.workdir import read_config
from mgjax.training.monitoring.goodput import read_lines
from mgjax.training.monitoring.metrics import read_metrics
from mgjax.training.monitoring.workdir_lock import hold
from tests import tiny


def arms(**changes):
  """Two autoencoders, of which one hardly learns."""
  return {
    'plain': tiny.autoencoder(**changes),
    'slow': tiny.autoencoder(**changes, optimizer__learning_rate=1e-5),
  }


def scores(workdir):
  """A number a prompt, which depends on what the run did."""
  last = [row['loss'] for _, row in read_metrics(workdir) if 'loss' in row][-1]
  return {'height': last + np.arange(4) / 8, 'name': workdir.name}


def records(workdir):
  """The rows without what the clock decides."""
  rows = read_rows(workdir)
  assert all(row.pop('seconds') > 0 for row in rows)
  return rows


def never(*arguments, **options):
  raise AssertionError('nothing is left to train')


@pytest.fixture
def ended(tiny_runs, tmp_path):
  """A sweep that was killed between the end of its only run and the row of it."""
  shutil.copytree(tiny_runs / 'autoencoder', tmp_path / 'sweep' / 'plain' / 'seed_0')
  return tmp_path / 'sweep'


@pytest.fixture
def finished(ended, monkeypatch):
  """That sweep with its row; nothing may be trained again."""
  monkeypatch.setattr(sweep, 'train', never)
  assert again(ended, evaluate=scores)
  return ended


def again(workdir, **options):
  return run_sweep({'plain': arms()['plain']}, [0], workdir, **options)


def test_a_row_has_what_decided_its_run_and_what_came_of_it(finished):
  (row,) = read_rows(finished)
  assert (row['arm'], row['seed'], row['steps']) == ('plain', 0, 8) and row['seconds'] > 0
  folder = finished / 'plain' / 'seed_0'
  metrics = dict(tiny.losses(folder))[8]
  assert row['loss'] == metrics['loss']
  assert row['validation_loss'] == metrics['validation/video/loss']
  assert (
    row['validation_loss_raw'] == metrics['validation_raw/video/loss'] != row['validation_loss']
  )
  assert {'jax', 'mgjax', 'numpy'} <= row['versions'].keys()
  assert row['scores']['height'] == [row['loss'] + index / 8 for index in range(4)]
  assert (
    row['digest']
    == sweep.digest(arms()['plain'].to_dict())
    != sweep.digest(arms(seed=1)['plain'].to_dict())
  )


def test_a_finished_run_is_not_run_again(finished):
  before = (finished / FILE).read_bytes()
  assert again(finished, evaluate=never)
  assert (finished / FILE).read_bytes() == before


def test_a_killed_run_goes_on_from_its_checkpoint_and_ends_with_the_same_row(ended):
  assert again(ended, evaluate=scores)
  before = records(ended)
  (ended / FILE).unlink()
  shutil.rmtree(ended / 'plain' / 'seed_0' / 'checkpoints' / '8')
  assert again(ended, evaluate=scores)
  assert records(ended) == before
  assert read_lines(ended / 'plain' / 'seed_0' / 'goodput.jsonl')[-1]['from'] == 6


def test_a_run_that_a_signal_stopped_has_no_row(ended, monkeypatch):
  shutil.rmtree(ended / 'plain' / 'seed_0' / 'checkpoints')
  (ended / 'plain' / 'seed_0' / 'metrics.jsonl').unlink()
  monkeypatch.setattr(sweep, 'train', lambda *_: types.SimpleNamespace(step=4))
  assert not again(ended, evaluate=never)
  assert read_rows(ended) == []


@pytest.mark.parametrize('cut', [0, 1, 200])
def test_a_row_that_was_not_written_whole_is_made_of_the_finished_run(finished, cut):
  before = read_rows(finished)
  (finished / FILE).write_bytes((finished / FILE).read_bytes()[:cut])
  assert again(finished, evaluate=scores)
  assert read_rows(finished) == before


def test_runs_are_evaluated_once_there_is_an_evaluation_and_other_arms_keep_their_rows(finished):
  (row,) = read_rows(finished)
  lines = [row | {'scores': None}, row | {'arm': 'other'}]
  (finished / FILE).write_text(''.join(json.dumps(line) + '\n' for line in lines))
  assert again(finished)
  assert read_rows(finished) == lines
  assert again(finished, evaluate=scores)
  assert read_rows(finished) == [row, lines[1]]


def test_a_run_that_fails_has_a_row_that_says_so_and_the_others_go_on(finished, monkeypatch):
  def fails(config, folder, make_spec):
    raise NonFiniteError('the loss of step 2 is nan', 2)

  monkeypatch.setattr(sweep, 'train', fails)
  pair = {'first': arms()['slow'], 'plain': arms()['plain']}
  assert run_sweep(pair, [0], finished, evaluate=scores)
  row = read_rows(finished)[-1]
  assert (row['arm'], row['steps'], row['loss'], row['scores']) == ('first', 2, None, None)
  assert row['error'] == 'the loss of step 2 is nan'
  monkeypatch.setattr(sweep, 'train', never)
  assert run_sweep(pair, [0], finished, evaluate=scores)
  assert read_rows(finished)[-1] == row
  with pytest.raises(DataError, match="arm 'first', seed 0 failed"):
    compare_rows(read_rows(finished), 'first', 'plain', 'height', seeds=[0])


def test_another_configuration_is_refused_before_anything_begins(finished):
  new = {'new': arms()['slow']}
  with pytest.raises(ConfigError, match="'plain', seed 0 has a row of another configuration"):
    run_sweep(new | {'plain': arms(train__steps=9)['plain']}, [0], finished)
  (finished / FILE).unlink()
  with pytest.raises(ConfigError, match=r'train\.steps: 8 -> 9'):
    run_sweep(new | {'plain': arms(train__steps=9)['plain']}, [0], finished)


def test_how_and_where_a_run_is_done_may_change(finished):
  assert run_sweep({'plain': arms(data__threads=2, train__save_every=4)['plain']}, [0], finished)


def test_checkpoints_elsewhere_have_a_folder_a_run(tmp_path, monkeypatch):
  places = []

  def note(config, folder, make_spec):
    places.append(config.train.checkpoints)
    raise NonFiniteError('enough')

  monkeypatch.setattr(sweep, 'train', note)
  run_sweep({'plain': arms(train__checkpoints='/far/')['plain']}, [0, 5], tmp_path)
  assert places == ['/far/plain/seed_0', '/far/plain/seed_5']


def test_errors_that_can_be_mended_name_the_run(finished):
  (finished / FILE).unlink()
  with pytest.raises(ConfigError, match="arm 'plain', seed 0: evaluate gave what JSON cannot hold"):
    again(finished, evaluate=lambda folder: {'x': float('nan')})


@pytest.mark.parametrize(
  ('names', 'seeds', 'said'),
  [
    ((), [0], 'a sweep of no arms'),
    (('a',), [], 'one at least'),
    (('a',), [1, 1], 'each once'),
    (('a',), {'a': []}, "arm 'a' has the seeds"),
    (('a',), [-1], 'seed = -1'),
    (('../a',), [0], "'../a' is to name an arm"),
  ],
)
def test_names_and_seeds_that_cannot_be_used_are_refused(tmp_path, names, seeds, said):
  with pytest.raises(ConfigError, match=said):
    run_sweep(dict.fromkeys(names, arms()['plain']), seeds, tmp_path)


def test_a_run_that_another_process_holds_is_passed_over(finished):
  (finished / FILE).unlink()
  held, over = threading.Event(), threading.Event()

  def other():
    with hold(finished / 'plain' / 'seed_0'):
      held.set()
      over.wait(60)

  thread = threading.Thread(target=other)
  thread.start()
  assert held.wait(60)
  assert not again(finished) and not read_rows(finished)
  over.set()
  thread.join()
  assert again(finished) and len(read_rows(finished)) == 1


def test_rows_say_what_the_caller_knows_of_an_arm(ended):
  assert again(ended, about={'plain': {'flops': 3e9}, 'other': {'flops': 1}})
  assert [row['flops'] for row in read_rows(ended)] == [3e9]


@pytest.mark.slow
def test_numbers_that_are_not_finite_are_a_row_and_the_next_run_trains(tmp_path):
  both = arms(train__faults__skip=0)
  both['plain'].optimizer.update(learning_rate=1e30, warmup=0, clip=1e30)
  assert run_sweep(both, [0], tmp_path, evaluate=scores)
  bad, good = read_rows(tmp_path)
  assert bad['error'] and bad['loss'] is None and bad['scores'] is None and bad['versions']
  assert 'error' not in good and good['steps'] == 8 and good['scores']


def test_a_run_that_is_there_is_evaluated_with_changes_and_stays_as_it_is(tmp_path, monkeypatch):
  monkeypatch.setattr(sweep, 'train', never)
  of = find_run('digits/few_steps')
  before = {path.name: path.stat().st_mtime_ns for path in of.iterdir()}
  for seed in range(3):
    (tmp_path / f'model_{seed}').symlink_to(of.absolute())
  name = f'{tmp_path}/model_{{seed}}'
  arm = {'one': ConfigDict({'of': name, 'changes': {'sample': {'steps': 1}}})}

  def steps(workdir):
    (workdir / 'evaluation.json').write_text('{}')
    return {'steps': read_config(workdir).sample.steps, 'passed': load_params(workdir)[1]['step']}

  assert run_sweep(arm, [0, 1], tmp_path, evaluate=steps)
  assert [row['scores']['steps'] for row in read_rows(tmp_path)] == [1, 1]
  assert run_sweep(arm, [0, 1], tmp_path, evaluate=never)
  assert before == {path.name: path.stat().st_mtime_ns for path in of.iterdir()}
  with pytest.raises(ConfigError, match='wants samples'):
    run_sweep(arm, [2], tmp_path)
  wrong = {'two': ConfigDict({'of': 'digits/few_steps', 'changes': {'sample': {'stepz': 1}}})}
  with pytest.raises(ConfigError, match=r'sample\.stepz; did you mean sample\.steps'):
    run_sweep(wrong, [0], tmp_path, evaluate=steps)
