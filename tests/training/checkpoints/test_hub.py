"""Runs on the Hub: the same bytes come back, and nothing but what the list says is ever read."""

import hashlib
import json
import pathlib
import types

import numpy as np
import pytest
from huggingface_hub import ModelCard, constants
from safetensors.numpy import save

from mgjax.core.configuration.config_files import load_config
from mgjax.core.errors import ConfigError, DataError
from mgjax.training.checkpoints import published
from mgjax.training.checkpoints.find_run import SHIPPED, find_run
from mgjax.training.checkpoints.resume import check_same
from mgjax.training.checkpoints.run_references import LIST
from mgjax.training.run import train
from tests import binaries
from tests.training.checkpoints.hub_server import serving_hub

NAME = 'hf://me/tiny'
FILES = {
  'config.json': b'{"component": "video"}',
  'weights.safetensors': save({'w': np.arange(50_000, dtype=np.float32)}),
}

# Files and entries of the list that are refused: what more is there, how the list says it, why.
REFUSED = [
  ({'model.pt': b'\x80\x02.'}, {}, "has 'model.pt', which is not fetched.*no pickles"),
  ({'run.py': b'import os'}, {}, "has 'run.py', which is not fetched"),
  ({'../a.json': b'{}'}, {}, "has '../a.json', which is not fetched"),
  ({'.git/a.json': b'{}'}, {}, "has '.git/a.json', which is not fetched"),
  ({'w.safetensors': b'PK\x03\x04 pickled'}, {}, 'w.safetensors is not what'),
  (
    {},
    {'weights.safetensors': {'size': 2**40, 'sha256': 'a' * 64}},
    'is not from 0 to 274,877,906,944',
  ),
  ({}, {'weights.safetensors': {'size': 9, 'sha256': 'a' * 64}}, 'bytes; mgjax.json says 9'),
  ({}, {'weights.safetensors': {'size': 9}}, 'no size and SHA-256 of weights.safetensors'),
  ({}, {'lost.json': {'size': 2, 'sha256': 'a' * 64}}, 'it lacks .*listed'),
  ({LIST: b' ' * 2**21}, {}, r'mgjax.json has .* bytes'),
  ({LIST: b'[' * 9999}, {}, 'no readable JSON'),
]


@pytest.fixture
def server(tmp_path, monkeypatch):
  """A Hub with one run in it, an empty home of its client, which does not sleep between tries."""
  published.fetch_run.cache_clear()
  with serving_hub() as (there, address):
    own = {'ENDPOINT': address, 'HF_HOME': str(tmp_path / 'home'), 'HF_HUB_DISABLE_XET': True}
    own |= {'HF_HUB_CACHE': str(tmp_path / 'home' / 'hub'), 'HF_HUB_DOWNLOAD_TIMEOUT': 1}
    own['DOWNLOAD_CHUNK_SIZE'] = 1000  # what an answer that breaks off has, up to a multiple of it
    own['HUGGINGFACE_CO_URL_TEMPLATE'] = address + '/{repo_id}/resolve/{revision}/{filename}'
    for name, value in own.items():
      monkeypatch.setattr(constants, name, value)
    clock = types.SimpleNamespace(sleep=lambda seconds: None, monotonic=lambda: 0.0)
    monkeypatch.setattr('huggingface_hub.utils._http.time', clock)
    monkeypatch.setattr('huggingface_hub.file_download.time', clock)
    monkeypatch.setattr('mgjax.training.checkpoints.hub.time', clock)
    publish(there)
    yield there


def listing(files, **changes):
  """A list of files, some of whose entries are others."""
  listed = {
    name: {'size': len(data), 'sha256': hashlib.sha256(data).hexdigest()}
    for name, data in files.items()
  }
  return json.dumps({'files': listed | changes}).encode()


def publish(there, files=FILES, **changes):
  """Commits files with a list of them, some of whose entries are others; returns the name."""
  data = listing(files, **changes)
  commit = there.commit('me/tiny', 'main', {LIST: data, **files})
  return f'{NAME}@{commit}#{hashlib.sha256(data).hexdigest()}'


def written(folder, files=FILES):
  """Writes files below a folder; returns where each is."""
  for name, data in files.items():
    (folder / name).parent.mkdir(parents=True, exist_ok=True)
    (folder / name).write_bytes(data)
  return {name: folder / name for name in files}


def read(folder):
  files = (path for path in folder.rglob('*') if path.is_file() and path.name != LIST)
  return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}


@pytest.mark.filterwarnings('ignore:Use .content')  # in its client
def test_what_is_pushed_is_what_is_pulled_once_under_a_name_that_fixes_it(server, tmp_path):
  folder, sent = tmp_path / 'pulled', {'a/notes.txt': b'x', **FILES}
  name = published.push(written(tmp_path / 'sent', sent), 'hf://me/other@trial')
  assert published.pull('hf://me/other@trial', folder) == name
  assert read(folder) == sent == read(find_run(pathlib.Path(str(name))))
  with pytest.raises(ConfigError, match='is there already; give a new folder'):
    published.pull(str(name), folder)
  server.asked.clear()
  published.fetch_run.cache_clear()
  assert read(published.fetch_run(str(name))) == sent and not server.asked  # pinned, and there
  config = {'autoencoder': 'hf://me/other@trial', 'rates': (('text=hf://me/other@trial', 1.0),)}
  pinned = {'autoencoder': str(name), 'rates': ((f'text={name}', 1.0),)}
  assert published.pinned(config) == pinned == published.pinned(pinned)


@pytest.mark.parametrize(
  ('faults', 'ranges', 'message'),
  [
    (['cut', 'cut'], 2, ''),
    (['429', '429'], 0, ''),
    (['500', '503', '500'], 0, ''),
    (['slow'], 0, ''),
    (['500!'], 0, '500 Internal Server Error.*the same command goes on'),
    (['wrong'], 0, 'weights.safetensors is not what mgjax.json says.*it is thrown away'),
    (['cut!'], 0, 'the same command goes on'),
  ],
)
def test_a_fault_is_survived_or_told_and_the_next_try_goes_on(
  server, tmp_path, faults, ranges, message
):
  server.faults['weights.safetensors'], server.faults[LIST] = list(faults), ['503']
  folder = tmp_path / 'pulled'
  if message:
    with pytest.raises(DataError, match=message):
      published.pull(NAME, folder)
    assert not folder.exists() and not list(tmp_path.glob('home/mgjax/*/weights.safetensors'))
    server.faults.clear()
    server.asked.clear()
  published.pull(NAME, folder)
  assert read(folder) == FILES and not list(tmp_path.glob('home/mgjax/*.part'))
  gets = [(name, part) for method, name, part in server.asked if method == 'GET']
  assert sum(part is not None for _, part in gets) == ranges
  assert ('config.json', None) not in gets or not message  # that came with the first try


@pytest.mark.parametrize(('more', 'changes', 'message'), REFUSED)
def test_what_may_not_be_fetched_is_refused_by_name(server, tmp_path, more, changes, message):
  publish(server, FILES | more, **changes)
  with pytest.raises((ConfigError, DataError), match=message):
    published.pull(NAME, tmp_path / 'pulled')
  assert not (tmp_path / 'pulled').exists()
  if 'model.pt' in more:
    (tmp_path / 'model.pt').write_bytes(b'')
    with pytest.raises(ConfigError, match=message):
      published.push(
        {'config.json': SHIPPED / 'cards.json', 'model.pt': tmp_path / 'model.pt'}, NAME
      )


def test_what_is_not_listed_is_never_asked_for(server, tmp_path):
  server.commit('me/tiny', 'main', {'evil.py': b'', 'checkpoints/1/a.json': b''})
  published.pull(NAME, tmp_path / 'pulled')
  assert read(tmp_path / 'pulled') == FILES
  assert {name for _, name, _ in server.asked} == {LIST, *FILES}


def test_a_revision_that_changed_is_refused_and_so_is_a_tampered_file(server, tmp_path):
  first, commit = published.pin(NAME), server.refs['me/tiny', 'main']
  publish(server, FILES | {'config.json': b'{"component": "audio"}'})
  moved = first.replace(commit, 'main')
  with pytest.raises(DataError, match=r'@main#\w+: the revision changed'):
    published.fetch_run(moved)
  folder = published.fetch_run(first)
  for name, data in (('weights.safetensors', b'x'), ('checkpoints/1.json', b'{}')):
    published.fetch_run.cache_clear()
    kept = (folder / name).read_bytes() if (folder / name).exists() else None
    (folder / name).parent.mkdir(exist_ok=True)
    (folder / name).write_bytes(data)
    with pytest.raises(DataError, match=rf'{name} is not what.*delete .* fetched again'):
      published.fetch_run(first)
    (folder / name).unlink() if kept is None else (folder / name).write_bytes(kept)


def test_a_run_is_built_on_what_its_configuration_fixes(server, tmp_path):
  def stop(config, workdir):
    raise ConfigError(f'built on {config.start_from}')

  config = load_config('digits/autoencoder', {'start_from': NAME})
  with pytest.raises(ConfigError, match=f'built on {published.pin(NAME)}'):
    train(config, tmp_path / 'run', stop)
  before = json.loads((tmp_path / 'run/config.json').read_text())
  assert before['start_from'] == published.pin(NAME) and config.start_from == NAME
  publish(server, FILES | {'a.txt': b'more'})
  with pytest.raises(ConfigError, match=r'another configuration: start_from'):
    check_same(before, published.pinned(config.to_dict()), 'run')


def test_offline_what_is_there_serves_and_what_is_not_is_told(server, tmp_path, monkeypatch):
  folder = published.fetch_run(NAME)
  published.fetch_run.cache_clear()
  monkeypatch.setattr(constants, 'HF_HUB_OFFLINE', True)
  server.asked.clear()
  assert published.fetch_run(NAME) == folder and not server.asked
  for name, kind, message in (
    ('hf://me/nothing', DataError, 'not all of it is on this machine.*HF_HUB_OFFLINE'),
    ('hf://tiny', ConfigError, 'expected hf://owner/name'),
  ):
    with pytest.raises(kind, match=message):
      published.fetch_run(name)
  monkeypatch.setattr(constants, 'HF_HUB_OFFLINE', False)
  with pytest.raises(ConfigError, match='no such repository or revision'):
    published.fetch_run('hf://me/tiny@nowhere')


def test_weights_that_are_pushed_make_the_same_samples_where_they_are_pulled(tmp_path, monkeypatch):
  def command(*words):
    done = binaries.run(*words)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()[-1] if done.stdout else ''

  monkeypatch.setenv('HF_HOME', str(tmp_path / 'home'))
  monkeypatch.setenv('HF_HUB_DISABLE_XET', '1')
  own, pulled = tmp_path / 'own', tmp_path / 'pulled'
  ask = '--prompt=the green digit 3 moves left', '--steps=1'
  with serving_hub() as (_, address):
    monkeypatch.setenv('HF_ENDPOINT', address)
    command('weights', 'export', '--workdir=digits/few_steps', '--format=workdir', f'--out={own}')
    command('sample', 'video', f'--workdir={own}', *ask, f'--out={own / "samples"}')
    name = command('weights', 'push', f'--workdir={own}', '--out=hf://me/few-steps')
    assert command('weights', 'pull', f'--input={name}', f'--workdir={pulled}') == name
    weights = SHIPPED / 'digits/few_steps/weights.safetensors'
    assert (pulled / weights.name).read_bytes() == (own / weights.name).read_bytes()
    command('sample', 'video', f'--workdir={name}', *ask, f'--out={tmp_path / "again"}')
    card = ModelCard.load(pulled / 'README.md')
    (shown,) = card.data.widget
    assert card.data.pipeline_tag == 'text-to-video' and shown['text'] in ask[0]
    for path in (own / 'samples').glob('*.mp4'):
      assert path.read_bytes() == (tmp_path / 'again' / path.name).read_bytes()
      assert path.read_bytes() == (pulled / shown['output']['url']).read_bytes()
