"""Trackers: a killed run goes on as one, nothing lost or doubled; what fails stops no training."""

import collections
import json
import os
import pathlib
import posixpath
import re
import signal
import sys
import threading

import numpy as np
import PIL.Image
import pytest

from mgjax.core.errors import ConfigError
from mgjax.data.media.audio import write_wav
from mgjax.data.media.viewing import write_clip
from mgjax.training.monitoring import trackers
from mgjax.training.monitoring.trackers import RunLog, Tracker, make_trackers
from tests import binaries, tiny

LAST, SHOWN = 9, (3, 6, 9)
# More fields than a transaction of MLflow takes, one of them longer than it takes.
CONFIG = {'seed': 0, 'model': {'dims': (8, 8)}, 'long': 'x' * 9000}
CONFIG |= {f'field_{number}': number for number in range(200)}


def learn(workdir, name, begin, kill):
  """What a process does from a checkpoint at step `begin`; it kills itself after another step."""
  workdir, begin, kill = pathlib.Path(workdir), int(begin), int(kill)
  log = RunLog(workdir, begin, make_trackers([name]), CONFIG)
  for step in range(begin + 1, LAST + 1):
    log.write(step, {'loss': np.float32(1 / step), 'norm/all': step})
    if step in SHOWN:
      log.write(step, {'validation/video/loss': step})
      folder = workdir / 'samples' / f'step_{step:06d}'
      folder.mkdir(parents=True, exist_ok=True)
      PIL.Image.new('RGB', (6, 4)).save(folder / 'samples.png')
      write_clip(folder / '000.mp4', np.full((4, 16, 16, 3), step, np.uint8), 8)
      write_wav(folder / '001.wav', np.zeros((480, 1), np.float32), 48000)
      log.show(step, folder / 'samples.png')
    if step == kill:
      threading.Event().wait(3 * (begin > 0))  # what it holds by then shall not come again
      os.kill(os.getpid(), signal.SIGKILL)
  log.close()


def events(workdir):
  """Points of TensorBoard's files."""
  from tensorboardX.proto.event_pb2 import Event

  files = [path.read_bytes() for path in sorted((workdir / 'tensorboard').iterdir())]
  found = [Event.FromString(each) for data in files for each in trackers._event_records(data)]
  return [(event.step, value.tag) for event in found for value in event.summary.value]


def rows_of_trackio(workdir):
  from trackio import Api
  from trackio.sqlite_storage import SQLiteStorage

  (run,) = Api().runs('mgjax')
  assert run.config['model.dims'] == [8, 8]
  return [(row['step'], name) for row in SQLiteStorage.get_logs('mgjax', run.name) for name in row]


def mlflow_run(workdir):
  from mlflow import MlflowClient

  client = MlflowClient(f'sqlite:///{workdir}/mlflow/runs.db')
  (run,) = client.search_runs([each.experiment_id for each in client.search_experiments()])
  return client, run


def rows_of_mlflow(workdir):
  client, run = mlflow_run(workdir)
  assert run.info.status == 'FINISHED' and run.data.params['model.dims'] == '[8, 8]'
  assert len(run.data.params) == len(CONFIG) and run.data.params['long'] == 'x' * 6000
  for step in SHOWN:  # one file of a name
    files = client.list_artifacts(run.info.run_id, f'samples/step_{step:06d}')
    assert {pathlib.Path(each.path).name for each in files} == {'samples.png', '000.mp4', '001.wav'}
  history = (client.get_metric_history(run.info.run_id, name) for name in run.data.metrics)
  return [(each.step, each.key) for points in history for each in points]


def rows_of_wandb(workdir):
  identity = json.loads((workdir / 'trackers.json').read_text())['id']
  assert all(path.name.endswith(identity) for path in (workdir / 'wandb').glob('offline-run*'))
  return trackers._wandb_rows(trackers.Run(workdir, '', identity, {}, 0))


READERS = {
  'tensorboard': events,
  'trackio': rows_of_trackio,
  'mlflow': rows_of_mlflow,
  'wandb': rows_of_wandb,
}


@pytest.mark.filterwarnings('ignore:The ``noload``')  # MLflow's, of SQLAlchemy
@pytest.mark.parametrize('name', trackers.TRACKERS)
def test_a_run_that_is_killed_twice_is_one_run_without_lost_or_double_points(
  tmp_path, monkeypatch, name
):
  monkeypatch.setenv('TRACKIO_DIR', str(tmp_path / 'trackio'))  # which it reads as it is imported
  if extra := trackers.TRACKERS[name].extra:
    pytest.importorskip(extra)
  for begin, kill, code in ((0, 5, -signal.SIGKILL), (3, 7, -signal.SIGKILL), (6, 0, 0)):
    words = tmp_path, name, begin, kill
    done, _ = binaries.start('tests.training.monitoring.test_trackers', *words, timeout=120)
    assert done.returncode == code, done.stderr
  found = collections.Counter(READERS[name](tmp_path))
  own = {'loss': range(1, 10), 'norm/all': range(1, 10), 'validation/video/loss': SHOWN}
  if name != 'mlflow':
    own |= dict.fromkeys(('samples', 'samples/000', 'samples/001'), SHOWN)
  for tag, steps in own.items():
    assert {step: n for (step, each), n in found.items() if each == tag} == dict.fromkeys(steps, 1)


@pytest.mark.parametrize(
  'name',
  [
    'loss',
    'norm/all',
    'a+b',
    'über/größe',
    'x=1,y=2',
    'a//b',
    '/a',
    'a/',
    '.',
    '../a',
    '',
    '%',
    'n' * 300,
  ],
)
def test_whatever_a_metric_is_called_mlflow_takes_its_name(name):
  found = trackers.MLflow().named(name)
  # MLflow's own rules: these characters, a path in its shortest form, and this length.
  assert re.fullmatch(r'[\w\-. :/]{1,250}', found) and posixpath.normpath(found) == found
  assert not found.startswith(('/', '..')) and found != '.'
  assert (found == name) == (name in ('loss', 'norm/all'))
  assert found == trackers.MLflow().named(found)  # as it is found there again


@pytest.mark.filterwarnings('ignore:The ``noload``')
def test_an_odd_key_costs_mlflow_no_other_metric(tmp_path):
  pytest.importorskip('mlflow')
  log = RunLog(tmp_path, trackers=[trackers.MLflow()], config={'a//b': 1})
  for step, name in ((1, 'x=1'), (2, 'loss')):
    log.write(step, {name: 1.0, 'other': 2.0})
  log.close()
  _, run = mlflow_run(tmp_path)
  named = trackers.MLflow().named
  assert set(run.data.metrics) == {named('x=1'), 'loss', 'other'}
  assert set(run.data.params) == {named('a//b')}


def test_names_that_differ_do_not_meet_in_mlflow():
  names = ['a+b', 'a*b', 'a_b', 'a b', 'n' * 300, 'n' * 299 + 'm']
  assert len({trackers.MLflow().named(name) for name in names}) == len(names)


class Failing(Tracker):
  """Fails at the call of a name, or never comes back from it."""

  def __init__(self, call, how):
    self.call, self.how, self.logged = call, how, []

  def _fail(self, call):
    if call == self.call and self.how == 'raises':
      raise OSError(28, 'No space left on device')
    if call == self.call:
      threading.Event().wait()

  def start(self, run):
    self._fail('start')

  def log(self, step, metrics, files):
    if step == 3:
      self._fail('log')
    self.logged.append(step)

  def finish(self):
    self._fail('finish')


@pytest.mark.parametrize('call', ['start', 'log', 'finish'])
@pytest.mark.parametrize('how', ['raises', 'hangs'])
def test_a_tracker_that_fails_or_hangs_costs_one_warning(tmp_path, monkeypatch, caplog, call, how):
  monkeypatch.setattr(trackers, '_PATIENCE', 0.2)
  failing, whole = Failing(call, how), Failing('', '')
  log = RunLog(tmp_path, 0, [failing, whole])
  for step in range(1, 20):
    log.write(step, {'loss': step})
  log.close()
  assert whole.logged == [row['step'] for row in tiny.metrics(tmp_path)]
  assert caplog.text.count('Failing gets nothing more') == 1


def test_a_tracker_that_is_added_later_hears_of_all_steps(tmp_path):
  log = RunLog(tmp_path, 0)
  log.write(1, {'loss': 3})
  log = RunLog(tmp_path, 1, make_trackers(['tensorboard']))
  log.write(2, {'loss': 2})
  log.close()
  assert events(tmp_path) == [(1, 'loss'), (2, 'loss')]


def test_what_is_not_there_or_not_installed_is_named(monkeypatch):
  with pytest.raises(ConfigError, match=r"has 'tensorbord'; expected some of tensorboard, trackio"):
    make_trackers(['tensorbord'])
  monkeypatch.setattr('importlib.util.find_spec', lambda name: None)
  with pytest.raises(ConfigError, match=r"not installed; pip install 'mgjax\[wandb\]'"):
    make_trackers(['tensorboard', 'wandb'])


if __name__ == '__main__':
  learn(*sys.argv[1:])
