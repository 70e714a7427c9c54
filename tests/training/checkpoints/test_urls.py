"""Runs at URLs: the same bytes come back, a push that was cut is not read, faults are told."""

import hashlib
import pathlib
import sys
from unittest import mock

import fsspec
import pytest
from fsspec.implementations.memory import MemoryFileSystem
from huggingface_hub import constants

from mgjax.apps.weights.import_export import export_weights
from mgjax.core.configuration.config_files import load_config
from mgjax.core.errors import ConfigError, DataError
from mgjax.core.run_names import is_name, read_name
from mgjax.lab.evaluation.record.write import folder_of
from mgjax.training.checkpoints import published
from mgjax.training.checkpoints.find_run import SHIPPED, find_run
from mgjax.training.checkpoints.run_references import LIST
from mgjax.training.checkpoints.warm_start import WarmStartSource, parse_sources
from mgjax.training.monitoring.workdir_lock import hold
from mgjax.training.run import train
from tests import binaries
from tests.training.checkpoints.test_hub import FILES, REFUSED, listing, read, written

URL = 'memory://bucket/run'


@pytest.fixture(autouse=True)
def _nothing_there(tmp_path, monkeypatch):
  """An empty memory, an empty cache, and a folder to stand in."""
  monkeypatch.setattr(MemoryFileSystem, 'store', {})
  monkeypatch.setattr(constants, 'HF_HOME', str(tmp_path / 'home'))
  monkeypatch.chdir(tmp_path)
  published.fetch_run.cache_clear()


def publish(files=FILES, url=URL, **changes):
  """Writes files with a list of them, some of whose entries are others."""
  there, root = fsspec.core.url_to_fs(url, auto_mkdir=True)
  for file, data in ({LIST: listing(files, **changes)} | files).items():
    there.pipe_file(f'{root}/{file}', data)


def failing(monkeypatch, method, at, error):
  """Has a method of the memory fail at a file, after half of it."""
  whole = getattr(MemoryFileSystem, method)

  def fail(self, source, target, **options):
    if at in (pathlib.Path(source).name, pathlib.Path(target).name):
      if method == 'get_file':
        pathlib.Path(target).write_bytes(self.cat_file(source)[:100])
      raise error
    return whole(self, source, target, **options)

  monkeypatch.setattr(MemoryFileSystem, method, fail)


@pytest.mark.parametrize('url', [URL, 'file://{}/place/run'])
def test_what_is_pushed_is_what_is_pulled_once_under_a_name_that_fixes_it(tmp_path, url):
  url, sent = url.format(tmp_path), {'a/notes.txt': b'x', **FILES}
  name = published.push(written(tmp_path / 'sent', sent), f'{url}/')
  assert str(name) == f'{url}#{name.digest}' and not name.repository
  assert published.pull(url, tmp_path / 'pulled') == name
  assert read(tmp_path / 'pulled') == sent == read(find_run(pathlib.Path(str(name))))
  with pytest.raises(ConfigError, match='is there already; give a new folder'):
    published.pull(str(name), tmp_path / 'pulled')
  published.push(written(tmp_path / 'other', FILES), url)
  published.fetch_run.cache_clear()
  assert read(published.fetch_run(str(name))) == sent  # pinned, and there
  assert read(published.fetch_run(url)) == FILES


def test_a_configuration_fixes_the_runs_that_it_names_and_no_other_url(tmp_path):
  digest = published.push(written(tmp_path / 'sent'), URL).digest
  config = {
    'start_from': f'{URL}:backbone',
    'autoencoder': URL,
    'text': {'t5': {'workdir': URL}},
    'data': {'path': URL, 'sources': {'a': {'latents': 'gs://b/c'}}},
    'train': {'checkpoints': 's3://b/run'},
    'vision': 'runs/clip',
  }
  found, fixed = published.pinned(config), f'{URL}#{digest}'
  changed = {'start_from': f'{fixed}:backbone', 'autoencoder': fixed}
  assert found == config | changed | {'text': {'t5': {'workdir': fixed}}} == published.pinned(found)
  several = published.pinned({'start_from': f'a={URL}:text/b,c=runs/a:d,={URL}'})['start_from']
  assert parse_sources(several) == {
    'a': WarmStartSource(fixed, 'text/b'),
    'c': WarmStartSource('runs/a', 'd'),
    '': WarmStartSource(fixed, ''),
  }
  assert parse_sources('hf://me/tiny') == {'': WarmStartSource('hf://me/tiny', '')}


@pytest.mark.parametrize(('more', 'changes', 'message'), REFUSED)
def test_what_may_not_be_fetched_is_refused_by_name(tmp_path, more, changes, message):
  publish(FILES | more, **changes)
  with pytest.raises((ConfigError, DataError), match=message):
    published.pull(URL, tmp_path / 'pulled')
  assert not (tmp_path / 'pulled').exists()


def test_what_is_not_listed_is_not_fetched_and_a_tampered_file_is_refused(tmp_path):
  publish()
  there = fsspec.filesystem('memory')
  there.pipe_file('/bucket/run/evil.py', b'')
  assert read(published.fetch_run(published.pin(URL))) == FILES
  damaged = listing(FILES | {'config.json': b'{"component": "audio"}'})
  there.pipe_file(f'/bucket/run/{LIST}', damaged)
  published.fetch_run.cache_clear()
  with pytest.raises(DataError, match=r'config.json is not what.*it is thrown away'):
    published.fetch_run(URL)
  moved = f'{URL}#{hashlib.sha256(b"").hexdigest()}'
  with pytest.raises(DataError, match=r'run#\w+: the run changed: the SHA-256'):
    published.fetch_run(moved)


def test_a_fetch_that_fails_leaves_nothing_half_and_goes_on(tmp_path, monkeypatch):
  publish()
  with monkeypatch.context() as here:
    failing(here, 'get_file', 'weights.safetensors', ConnectionError('reset by peer'))
    with pytest.raises(DataError, match=r'ConnectionError: reset by peer.*same command goes on'):
      published.pull(URL, tmp_path / 'pulled')
  left = [path.name for path in (tmp_path / 'home').rglob('*') if path.is_file()]
  assert 'config.json' in left and {'weights.safetensors', 'part'}.isdisjoint(left)
  failing(monkeypatch, 'get_file', 'config.json', AssertionError('it is there'))
  published.pull(URL, tmp_path / 'pulled')
  assert read(tmp_path / 'pulled') == FILES and not list(tmp_path.glob('home/mgjax/*.part'))


@pytest.mark.parametrize('before', [False, True])
def test_a_push_that_was_cut_is_never_read(tmp_path, monkeypatch, before):
  if before:
    publish(FILES | {'config.json': b'{"component": "audio"}'})
  with monkeypatch.context() as here:
    failing(here, 'put_file', 'weights.safetensors', KeyboardInterrupt())
    with pytest.raises(KeyboardInterrupt):
      published.push(written(tmp_path / 'sent'), URL)
  with pytest.raises(ConfigError, match=r'launch.weights push writes last'):
    published.fetch_run(URL)
  published.push(written(tmp_path / 'sent'), URL)
  assert read(published.fetch_run(URL)) == FILES


@pytest.mark.parametrize(
  ('url', 'error', 'message'),
  [
    ('nowhere://run', None, 'nowhere:// is unknown; expected hf://, gs://, s3://'),
    ('s3://bucket/run', None, 'pip install s3fs'),
    ('memory://nothing', None, f'no such place, or no {LIST} in it'),
    ('file:///nothing/run', None, f'no such place, or no {LIST} in it'),
    (URL, PermissionError('Access Denied'), 'no access .*Access Denied.*look at your rights'),
    (URL, TimeoutError('too slow'), 'TimeoutError: too slow; look at the connection'),
    ('file://run', None, r'expected hf://owner/name, or .*s3://bucket/run or file:///path/run'),
    ('simplecache::s3://run', None, 'expected hf://owner/name'),
    ('https://huggingface.co/me/run', None, 'is a page of the Hub; give hf://me/run$'),
    ('https://hf.co/me/run/tree/v2', None, 'is a page of the Hub; give hf://me/run@v2$'),
  ],
)
def test_what_cannot_be_reached_is_told_and_what_to_do(monkeypatch, url, error, message):
  monkeypatch.setitem(sys.modules, 's3fs', None)  # as if it were not installed
  if error is not None:
    monkeypatch.setattr(MemoryFileSystem, 'cat_file', mock.Mock(side_effect=error))
  with pytest.raises((ConfigError, DataError), match=message):
    published.fetch_run(url)


def test_paths_are_no_names_and_a_path_of_a_name_is_whose_results_lie_here():
  for path in ('runs/a', '/runs/a', 'C:/runs', 'C:\\runs', 'digits/video@3', 'run:3/a', 'my:/run'):
    assert not is_name(path) and not is_name(pathlib.Path(path))
    assert folder_of(path) == pathlib.Path(path)
  for name in ('hf://me/run', 's3://b/run', 'gs://b/a/run', 'memory://run', 'file:///a/run'):
    assert is_name(name) and is_name(pathlib.Path(name))
    assert read_name(name).place == name == read_name(pathlib.Path(name)).place
    assert folder_of(name) == folder_of(pathlib.Path(name)) == pathlib.Path(*name.split('/')[2:])


@pytest.mark.parametrize('url', ['s3://bucket/run', 'hf://me/run', pathlib.Path('s3://bucket/run')])
def test_nothing_is_written_to_a_folder_that_is_called_as_a_protocol(tmp_path, url):
  config = load_config('digits/autoencoder')
  for write in (
    lambda: train(config, url, lambda config, workdir: None),
    lambda: published.pull(URL, url),
    lambda: export_weights('digits/few_steps', url, 'workdir'),
    lambda: hold(url).__enter__(),
  ):
    with pytest.raises(ConfigError, match=r'is a URL; expected a folder.*train.checkpoints=gs'):
      write()
  assert not list(tmp_path.iterdir())


def test_commands_push_pull_and_refuse_to_train_at_a_url(tmp_path, monkeypatch):
  monkeypatch.setenv('HF_HOME', str(tmp_path / 'home'))
  url = (tmp_path / 'place').as_uri()
  done = binaries.run('weights', 'push', '--workdir=digits/few_steps', f'--out={url}')
  assert done.returncode == 0, done.stderr
  name = done.stdout.splitlines()[-1]
  assert name.startswith(f'{url}#')
  done = binaries.run('weights', 'pull', f'--input={name}', f'--workdir={tmp_path / "pulled"}')
  assert done.returncode == 0 and done.stdout.splitlines()[-1] == name, done.stderr
  for file in ('weights.safetensors', 'config.json'):
    kept = (SHIPPED / 'digits/few_steps' / file).read_bytes()
    assert (tmp_path / 'pulled' / file).read_bytes() == kept
  done = binaries.run('train', '--config=digits/autoencoder', f'--workdir={url}/new')
  assert done.returncode == 2 and 'is a URL; expected a folder' in done.stderr
