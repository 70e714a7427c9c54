"""A published run is data: it leads nowhere, its card may say anything, and links stay at home."""

import json
import os
import pathlib
import re
import shutil
import sys

import pytest

import mgjax
from mgjax.apps.weights.import_export import publish
from mgjax.core.errors import CheckpointError, ConfigError, MgjaxError
from mgjax.core.run_names import read_name
from mgjax.training.checkpoints.find_run import SHIPPED
from mgjax.training.checkpoints.published import differing
from mgjax.training.checkpoints.run_references import ALLOW, LIST, is_published, may_lead_to
from mgjax.training.checkpoints.weights_file import WEIGHTS_FILE
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


def test_runs_within_runs_lead_nowhere_either_however_deep(opened, tmp_path):
  secret = shutil.copytree(SHIPPED / 'digits' / 'few_steps', tmp_path / 'secret')
  pulled = changed(tmp_path / 'pulled', sample__expert='exp@0.4')
  inner = {'start_from': 'base', 'lora': {'rank': 1, 'alpha': 1.0}}
  changed(pulled / 'exp', listed=False, **inner)
  changed(pulled / 'exp' / 'base', listed=False, **(inner | {'start_from': str(secret)}))
  for folder in (pulled / 'exp', pulled / 'exp' / 'base', pulled / 'a' / 'b' / 'c' / 'd'):
    assert is_published(folder)
  assert not is_published(secret)
  _, files = opened(lambda: sentence(pulled / 'exp' / 'base'))
  assert not [each for each in files if each.startswith(str(secret))]


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


@pytest.mark.parametrize(
  ('matter', 'said'),
  [
    ('license: mit\ntags:\n\t- a\n---', r"found character '\\t' .* in line 4; mend it"),
    ('license: mit\n', 'begins with --- and does not end with such a line; mend it'),
    ('license: mit\n...', 'begins with --- and does not end with such a line; mend it'),
  ],
)
def test_what_is_wrong_with_front_matter_is_told(matter, said, tmp_path):
  folder = shutil.copytree(RUN, tmp_path / 'run')
  (folder / 'README.md').write_text(f'---\n{matter}\n# a model\n')
  assert re.search(said, published(folder, tmp_path))


@pytest.mark.parametrize(
  'record',
  [
    {'measured': {'metrics': {'a': 3}}, 'task': 't'},
    {'measured': {'metrics': {'a': {'value': 'x'}}}, 'task': 't'},
    {'measured': {'metrics': {'a': {'value': 1.0}}}},
    {'measured': {'metrics': {'a': {'value': float('nan')}}}, 'task': 't'},
  ],
)
def test_a_damaged_evaluation_has_no_numbers_on_the_card(record, tmp_path):
  folder = shutil.copytree(RUN, tmp_path / 'run')
  (folder / 'README.md').unlink()
  (folder / 'evaluation.json').write_text(json.dumps(record))
  assert not published(folder, tmp_path)
  assert 'model-index' not in (tmp_path / 'published' / 'README.md').read_text()


@pytest.mark.parametrize('rows', [7, [7], [{'file': 3}], [{'file': '../../x', 'prompt': 'secret'}]])
def test_a_card_shows_samples_that_are_published_alone(rows, tmp_path):
  folder = shutil.copytree(RUN, tmp_path / 'run')
  (folder / 'samples').mkdir()
  (folder / 'samples' / 'a.png').write_bytes(b'a picture')
  row = {'file': 'a.png', 'prompt': 'a red cat'}
  (folder / 'samples' / 'a.json').write_text(json.dumps({'samples': [row]}))
  (folder / 'samples' / 'b.json').write_text(json.dumps({'samples': rows}))
  assert not published(folder, tmp_path)
  card = (tmp_path / 'published' / 'README.md').read_text()
  assert 'text: a red cat' in card and 'secret' not in card


def test_a_folder_is_not_published_onto_itself(tmp_path):
  folder = shutil.copytree(RUN, tmp_path / 'run')
  before = (folder / WEIGHTS_FILE).read_bytes()
  with pytest.raises(ConfigError, match='the folder of the run itself'):
    publish(folder, f'file://{folder}')
  assert (folder / WEIGHTS_FILE).read_bytes() == before


@pytest.mark.parametrize('file', ['a\nb.txt', '\u202e.txt', 'a' * 250 + '.txt'])
def test_a_file_whose_name_no_list_may_have_is_named(file, tmp_path):
  folder = shutil.copytree(RUN, tmp_path / 'run')
  (folder / file).write_text('told')
  with pytest.raises(ConfigError, match=r'which is not fetched; expected names of at most 200'):
    publish(folder, f'file://{tmp_path}/published')


@pytest.mark.parametrize('file', ['README.md', 'config.json', WEIGHTS_FILE])
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


@pytest.mark.parametrize('place', ['', '.', '/', 'a' * 5000])
def test_a_place_that_no_run_can_have_is_a_sentence(place, tmp_path):
  folder = changed(tmp_path / 'pulled', autoencoder=place)
  with pytest.raises(ConfigError, match=r'expected (a path or a name|what lies in its folder)'):
    mgjax.load(folder)


def test_a_configuration_of_groups_in_groups_is_a_sentence(tmp_path):
  groups = {}
  for _ in range(400):
    groups = {'a': groups}
  with pytest.raises(ConfigError, match=r'config\.json.* it is nested too deep'):
    mgjax.load(changed(tmp_path / 'pulled', more=groups))


def test_a_list_that_is_a_pipe_is_not_waited_for(tmp_path):
  publish(RUN, f'file://{tmp_path}/published')
  (tmp_path / 'published' / LIST).unlink()
  os.mkfifo(tmp_path / 'published' / LIST)
  with pytest.raises(ConfigError, match=f'{LIST} is no regular file'):
    mgjax.load(f'file://{tmp_path}/published')


@pytest.mark.parametrize('part', [WEIGHTS_FILE, 'autoencoder'])
def test_links_in_a_published_folder_lead_nowhere(part, tmp_path):
  folder = changed(tmp_path / 'pulled', autoencoder='somewhere/autoencoder')
  outside = SHIPPED / 'digits' / 'autoencoder'
  if part == WEIGHTS_FILE:
    (folder / WEIGHTS_FILE).unlink()
    outside = RUN / WEIGHTS_FILE
  (folder / part).symlink_to(outside)
  with pytest.raises(ConfigError, match='published run'):
    mgjax.load(folder)


def published(folder, tmp_path):
  """Publishes a folder; returns the sentence of its refusal, '' if there is none."""
  try:
    publish(folder, f'file://{tmp_path}/published')
  except MgjaxError as error:
    assert not (tmp_path / 'published' / LIST).exists()
    return str(error)
  return ''


def damaged(data):
  return data[:-100] + bytes([data[-100] ^ 1]) + data[-99:]


@pytest.mark.parametrize(
  'file',
  [WEIGHTS_FILE, 'autoencoder/weights.safetensors', 'more.safetensors'],
  ids=['run', 'of', 'more'],
)
@pytest.mark.parametrize(
  'damage', [damaged, lambda data: data[:-9], lambda _: b'', lambda _: b'what is none']
)
def test_damaged_weights_are_not_published(file, damage, tmp_path):
  folder = shutil.copytree(SHIPPED / 'digits' / 'editing', tmp_path / 'run')
  place = folder / file
  data = place.read_bytes() if place.exists() else b'no file of tensors ' * 9
  place.write_bytes(damage(data))
  said = published(folder, tmp_path)
  assert os.fspath(place) in said


@pytest.mark.parametrize(
  'name', [WEIGHTS_FILE, 'config.json', 'README.md', 'evaluation.json', 'a.txt']
)
@pytest.mark.parametrize('make', [os.mkfifo, lambda path: path.symlink_to('/dev/zero')])
def test_a_pipe_or_a_device_is_neither_read_nor_published(name, make, tmp_path):
  folder = shutil.copytree(RUN, tmp_path / 'run')
  (folder / name).unlink(missing_ok=True)
  make(folder / name)
  said = published(folder, tmp_path)
  assert str(folder / name) in said and ('regular' in said or 'a pipe' in said or 'link' in said)
  if name in (WEIGHTS_FILE, 'config.json'):
    assert str(folder / name) in sentence(folder)


def test_a_linked_folder_is_not_published(tmp_path):
  folder = shutil.copytree(SHIPPED / 'digits' / 'editing', tmp_path / 'run')
  shutil.move(folder / 'autoencoder', tmp_path / 'elsewhere')
  (folder / 'autoencoder').symlink_to(tmp_path / 'elsewhere')
  assert f"'{folder}/autoencoder' is neither a file nor a folder" in published(folder, tmp_path)


def test_an_autoencoder_at_a_path_of_this_machine_goes_along(tmp_path):
  place = shutil.copytree(SHIPPED / 'digits' / 'autoencoder', tmp_path / 'secret' / 'tae')
  folder = changed(tmp_path / 'run', listed=False, autoencoder=str(place))
  assert not published(folder, tmp_path)
  assert (tmp_path / 'published' / 'tae' / WEIGHTS_FILE).exists()
  assert str(tmp_path) not in (tmp_path / 'published' / 'config.json').read_text()
  shutil.rmtree(tmp_path / 'secret')
  mgjax.load(tmp_path / 'published')


def test_a_list_without_weights_or_of_deep_folders_is_refused(tmp_path):
  about = {'size': 2, 'sha256': DIGEST}
  for more, said in (
    ({}, r'names no weights\.safetensors'),
    ({WEIGHTS_FILE: about, 'a/' * 500 + 'x.json': about}, 'in 7 folders inside at most'),
    (
      {WEIGHTS_FILE: about, 'x.json': about | {'size': 10**400}},
      'the size of x.json is not from 0',
    ),
  ):
    (tmp_path / LIST).write_text(json.dumps({'files': {'config.json': about, **more}}))
    with pytest.raises(MgjaxError, match=said) as refused:
      differing(tmp_path)
    assert len(str(refused.value)) < 600


@pytest.mark.parametrize(
  ('fields', 'said'),
  [
    ({'model__heads': 8}, r'model\.heads: 4 -> 8'),
    ({'model__conditionings.text.depth': 1}, r'model\.conditionings\.text\.depth: 2 -> 1'),
    ({'model__conditionings': {}}, r'model\.conditionings\.text\.depth: 2 -> '),
    ({'model__feed_forward': 'gelu'}, r"model\.feed_forward: '\w+' -> 'gelu'|absent"),
    ({'component': 'audio'}, "component: 'video' -> 'audio'"),
    ({'model': {}}, r'model\.'),
  ],
)
def test_a_configuration_of_another_model_than_its_weights_is_refused(fields, said, tmp_path):
  folder = shutil.copytree(RUN, tmp_path / 'run')
  config = json.loads((RUN / 'config.json').read_text())
  for name, value in fields.items():
    *outer, key = name.replace('__', '.').split('.')
    place = config
    for each in outer:
      place = place[each]
    place[key] = value
  (folder / 'config.json').write_text(json.dumps(config))
  with pytest.raises(ConfigError, match=said):
    mgjax.load(folder)
  done = binaries.run('weights', 'verify', f'--workdir={folder}')
  assert done.returncode == ConfigError.exit_code


def test_how_a_model_is_calculated_may_be_changed_by_hand(tmp_path):
  changed(tmp_path / 'run', listed=False, model__attention='blockwise', model__unroll=1)
  mgjax.load(tmp_path / 'run')


@pytest.mark.parametrize('key', json.loads((RUN / 'config.json').read_text()))
def test_a_configuration_that_lacks_a_field_is_no_traceback(key, tmp_path):
  folder = changed(tmp_path / 'run', listed=False)
  config = json.loads((folder / 'config.json').read_text())
  del config[key]
  (folder / 'config.json').write_text(json.dumps(config))
  said = sentence(folder)
  assert key in said or not said  # what sampling does not read is not missed


@pytest.mark.parametrize('name', ['hf://../x', 'hf://a/..', 'hf://./.'])
def test_a_name_that_is_no_repository_is_refused(name):
  with pytest.raises(ConfigError, match='expected hf://owner/name'):
    read_name(name)
