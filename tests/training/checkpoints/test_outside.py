"""A published run is data: it leads nowhere, its card may say anything, and links stay at home."""

import json
import os
import pathlib
import shutil
import sys

import pytest

import mgjax
from mgjax.apps.weights.import_export import publish
from mgjax.core.errors import CheckpointError, ConfigError, MgjaxError
from mgjax.core.run_names import read_name
from mgjax.training.checkpoints.find_run import SHIPPED
from mgjax.training.checkpoints.run_references import ALLOW, LIST, may_lead_to
from mgjax.training.checkpoints.weights_file import FILE
from tests import binaries
from tests.hostile.published import ELSEWHERE, NAMING
from tests.tiny import CHECKOUT

RUN = SHIPPED / 'digits' / 'few_steps'
DIGEST = '0' * 64
_told: list[str] | None = None


def _watch(event, arguments):
  if _told is not None:
    if event == 'open' and isinstance(arguments[0], str | bytes):
      _told.append(os.path.realpath(os.fsdecode(arguments[0])))
    elif event in ('socket.connect', 'socket.getaddrinfo'):
      _told.append(f'{event} {arguments}')


@pytest.fixture(scope='module')
def opened():
  """Calls a function and returns the files that it opens and the connections that it begins."""
  sys.addaudithook(_watch)

  def call(function):
    global _told
    _told = []
    try:
      return function(), _told
    finally:
      _told = None

  return call


def changed(folder, *, listed=True, **fields):
  """A copy of a run with other fields in its configuration, published or of one's own."""
  shutil.copytree(RUN, folder, dirs_exist_ok=True)
  config = json.loads((RUN / 'config.json').read_text())
  for name, value in fields.items():
    outer, _, key = name.replace('__', '.').rpartition('.')
    (config[outer] if outer else config)[key] = value
  (folder / 'config.json').write_text(json.dumps(config))
  if listed:
    (folder / LIST).write_text('{"files": {}}')
  return folder


def sentence(folder):
  try:
    mgjax.load(folder)
  except MgjaxError as error:
    return str(error)
  return ''


@pytest.mark.parametrize('name', NAMING)
def test_whatever_it_names_it_opens_nothing_outside_and_connects_to_nothing(
  name, opened, tmp_path, monkeypatch
):
  monkeypatch.chdir(tmp_path)
  secret = shutil.copytree(SHIPPED / 'digits' / 'autoencoder', tmp_path / 'secret')
  ours = (str(tmp_path / 'pulled'), sys.prefix, sys.base_prefix, str(CHECKOUT), '/usr', '/proc')
  for place in (*ELSEWHERE, 'secret', str(secret), f'file://{secret}', f'{secret}/../secret'):
    value = f'{place}@0.5' if name == 'sample.expert' else place
    if name == 'text':
      value = {'t5': {'workdir': place, 'reads': 'prompt'}}
    folder = changed(tmp_path / 'pulled', **{name.replace('.', '__'): value})
    _, files = opened(lambda folder=folder: sentence(folder))
    assert not [each for each in files if not each.startswith(ours)], (name, place)


def test_what_it_needs_may_lie_elsewhere_if_who_uses_it_says_so(tmp_path, monkeypatch):
  (tmp_path / 'secret').symlink_to(SHIPPED / 'digits' / 'autoencoder')
  mine = changed(tmp_path / 'mine', listed=False, autoencoder=str(tmp_path / 'secret'))
  mgjax.load(mine)
  pulled = changed(tmp_path / 'pulled', autoencoder=str(tmp_path / 'secret'))
  with pytest.raises(ConfigError, match=r'published run.*autoencoder at.*--allow_outside'):
    mgjax.load(pulled)
  monkeypatch.setenv(ALLOW, '1')
  mgjax.load(pulled)


def test_what_comes_with_mgjax_is_found_and_no_folder_takes_its_place(tmp_path, monkeypatch):
  monkeypatch.chdir(tmp_path)
  decoy = tmp_path / 'digits' / 'autoencoder'
  decoy.mkdir(parents=True)
  (decoy / 'config.json').write_text('{}')
  mgjax.load(changed(tmp_path / 'pulled', autoencoder='digits/autoencoder'))


@pytest.mark.parametrize(
  ('name', 'origin', 'allowed'),
  [
    (f'hf://a/b@main#{DIGEST}', 'hf://c/d', True),
    (f'hf://a/b@main#{DIGEST}', 's3://bucket/run', True),
    (f'hf://a/b@main#{DIGEST}', '', True),
    ('hf://a/b@main', 'hf://a/b', False),
    (f's3://bucket/other#{DIGEST}', 's3://bucket/run', True),
    (f's3://another/other#{DIGEST}', 's3://bucket/run', False),
    (f'http://127.0.0.1:9/x#{DIGEST}', 'http://127.0.0.1:10/x', False),
    (f'http://127.0.0.1:9/x#{DIGEST}', 'hf://a/b', False),
    (f'http://127.0.0.1:9/x#{DIGEST}', '', False),
    (f'file:///x/other#{DIGEST}', 's3://bucket/run', False),
    ('/x/other', '', False),
  ],
)
def test_it_may_name_what_is_fixed_on_the_hub_or_where_it_came_from(name, origin, allowed):
  assert may_lead_to(name, read_name(origin) if origin else None) is allowed


def test_checkpoints_elsewhere_are_no_weights_of_it(tmp_path):
  folder = changed(tmp_path / 'pulled', train__checkpoints=str(tmp_path / 'other'))
  (folder / 'weights.safetensors').unlink()
  with pytest.raises(ConfigError, match=r'published run without weights\.safetensors'):
    mgjax.load(folder)


@pytest.mark.parametrize('file', ['README.md', 'evaluation.json', 'samples/a.txt', 'more.txt'])
def test_links_out_of_a_folder_are_not_published(file, tmp_path):
  secret = tmp_path / 'secret'
  secret.write_text('{}')
  folder = shutil.copytree(RUN, tmp_path / 'run')
  (folder / file).parent.mkdir(exist_ok=True)
  (folder / file).unlink(missing_ok=True)
  (folder / file).symlink_to(secret)
  with pytest.raises(ConfigError, match=r'is a link to .*secret'):
    publish(folder, f'file://{tmp_path}/published')
  assert not (tmp_path / 'published').exists()
  (folder / file).unlink()
  (folder / 'within.txt').write_text('told')
  (folder / file).symlink_to(folder / 'within.txt')
  if file.endswith('.txt'):
    publish(folder, f'file://{tmp_path}/published')
    assert (tmp_path / 'published' / file).read_text() == 'told'


@pytest.mark.parametrize(
  'matter',
  [
    b'{{{',
    b'[' * 3000,
    b'a: [1, 2',
    b'tags: 5',
    b'- a\n- b',
    b'just text',
    b'license: [[[]]]\ntags: {a: 1}',
    b'model-index: 3',
    b'model-index: [{name: 1, results: [{}]}]',
    b'a: &a [*a]',
    b'!!python/object/apply:os.system ["true"]',
    b'widget: x\nbase_model: {}',
    b'\xff\xfe',
    b'a: \x00',
  ],
)
def test_a_card_whose_front_matter_cannot_be_read_is_a_sentence(matter, tmp_path):
  folder = shutil.copytree(RUN, tmp_path / 'run')
  (folder / 'README.md').write_bytes(b'---\n' + matter + b'\n---\n\n# a model\n')
  try:
    publish(folder, f'file://{tmp_path}/published')
  except ConfigError as error:
    assert len(str(error)) < 600 and '\n' not in str(error)
  else:  # what YAML can make something of is published
    assert (tmp_path / 'published' / 'README.md').read_text().startswith('---\n')
    assert pathlib.Path(tmp_path, 'published', LIST).exists()


@pytest.mark.parametrize(
  'text',
  [
    '\ufeff---\nlicense: mit\n---\n# x\n',
    '\n\n---\nlicense: mit\n---\n# x\n',
    '--- \nlicense: mit\n---\t\n# x\n',
    '---\r\nlicense: mit\r\n---\r\n# x\r\n',
  ],
)
def test_front_matter_is_found_however_an_editor_wrote_it(text, tmp_path):
  folder = shutil.copytree(RUN, tmp_path / 'run')
  (folder / 'README.md').write_bytes(text.encode())
  publish(folder, f'file://{tmp_path}/published')
  card = (tmp_path / 'published' / 'README.md').read_text()
  assert card.count('---\n') == 2 and 'license: mit' in card.split('---\n')[1]


def test_a_folder_is_not_published_onto_itself(tmp_path):
  folder = shutil.copytree(RUN, tmp_path / 'run')
  before = (folder / FILE).read_bytes()
  with pytest.raises(ConfigError, match='the folder of the run itself'):
    publish(folder, f'file://{folder}')
  assert (folder / FILE).read_bytes() == before


@pytest.mark.parametrize('file', ['a\nb.txt', '\u202e.txt', 'a' * 250 + '.txt'])
def test_a_file_whose_name_no_list_may_have_is_named(file, tmp_path):
  folder = shutil.copytree(RUN, tmp_path / 'run')
  (folder / file).write_text('told')
  with pytest.raises(ConfigError, match=r'which is not fetched; expected names of at most 200'):
    publish(folder, f'file://{tmp_path}/published')


@pytest.mark.parametrize('file', ['README.md', 'config.json', FILE])
def test_verify_compares_a_pulled_folder_with_its_list(file, tmp_path):
  publish(RUN, f'file://{tmp_path}/published')
  verify = 'weights', 'verify', f'--workdir={tmp_path}/published'
  assert binaries.run(*verify).returncode == 0
  with (tmp_path / 'published' / file).open('a') as opened:
    opened.write(' ')
  done = binaries.run(*verify)
  assert done.returncode == CheckpointError.exit_code and file in done.stdout + done.stderr


@pytest.mark.parametrize('rate', [10**12, 1e-12, -8, True])
def test_a_frame_rate_that_no_file_can_have_is_a_sentence(rate, tmp_path):
  with pytest.raises(ConfigError, match=r'fps'):
    mgjax.load(changed(tmp_path / 'pulled', data__fps=rate))


@pytest.mark.parametrize('part', [FILE, 'autoencoder'])
def test_links_in_a_published_folder_lead_nowhere(part, tmp_path):
  folder = changed(tmp_path / 'pulled', autoencoder='somewhere/autoencoder')
  outside = SHIPPED / 'digits' / 'autoencoder'
  if part == FILE:
    (folder / FILE).unlink()
    outside = RUN / FILE
  (folder / part).symlink_to(outside)
  with pytest.raises(ConfigError, match='published run'):
    mgjax.load(folder)
