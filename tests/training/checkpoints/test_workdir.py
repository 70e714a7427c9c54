"""Work directories whose side files are gone or damaged: the checkpoint counts, or a sentence."""

import json
import logging
import os

import numpy as np
import pytest

from mgjax.core.errors import ConfigError
from mgjax.training.checkpoints.find_run import runs_near
from mgjax.training.checkpoints.load_params import load_params, read_shapes
from mgjax.training.checkpoints.resume import claim_workdir
from mgjax.training.checkpoints.workdir import read_config, read_config_of, write_workdir

CONFIG = {
  'component': 'video',
  'seed': 1,
  'model': {'dim': 16, 'widths': [8, 16], 'dtype': 'float32', 'conditionings': {}},
  'train': {'steps': 8, 'save_every': 3, 'checkpoints': ''},
  'data': {'path': '', 'fps': 8},
}
PARAMS = {'a': {'kernel': np.arange(6, dtype='f').reshape(2, 3)}, 'b': np.ones(3, np.float16)}
DAMAGED = {
  'empty': b'',
  'cut': b'{"component": "vid',
  'not UTF-8': b'\xff\xfe{}',
  'a list': b'[]',
  'null': b'null',
  'deep': b'[' * 100_000,
  'a number': b'9' * 5000,
  'bare': b'{}',
  'another kind': json.dumps(CONFIG | {'model': {**CONFIG['model'], 'dim': 'x'}}).encode(),
  'another number': json.dumps(CONFIG | {'model': {**CONFIG['model'], 'dim': -1}}).encode(),
  'other widths': json.dumps(CONFIG | {'model': {**CONFIG['model'], 'widths': [8]}}).encode(),
  'no section': json.dumps({k: v for k, v in CONFIG.items() if k != 'data'}).encode(),
  'no key': json.dumps(CONFIG | {'train': {'steps': 8}}).encode(),
  'strange names': json.dumps(CONFIG | {'a.b': 1, '': {'': 2}, 'model': []}).encode(),
  'odd conditionings': json.dumps(CONFIG | {'model': {'conditionings': {'x': 3}}}).encode(),
}


@pytest.fixture
def workdir(tmp_path):
  write_workdir(CONFIG, PARAMS, {}, tmp_path / 'run', origin={'order': 'made'})
  return tmp_path / 'run'


@pytest.mark.parametrize('damage', [None, *DAMAGED])
def test_the_copy_in_the_checkpoint_counts_and_without_one_there_is_a_sentence(
  workdir, damage, caplog, tmp_path
):
  text = DAMAGED.get(damage)
  for place in (workdir, tmp_path / 'never saved'):
    place.mkdir(exist_ok=True)
    (place / 'config.json').unlink(missing_ok=True)
    if text is not None:
      (place / 'config.json').write_bytes(text)
  assert read_config(workdir).to_dict() == CONFIG | {'model': read_config(workdir).model.to_dict()}
  assert read_config(workdir).model.dim == 16
  assert 'config.json' in caplog.text and 'The copy in the newest checkpoint counts' in caplog.text
  if not (text and damage.startswith(('other', 'another', 'no '))):
    with pytest.raises(ConfigError, match=r'config\.json'):
      read_config(tmp_path / 'never saved')
  claim_workdir(CONFIG, workdir)
  with pytest.raises(ConfigError, match='begun with another configuration: seed'):
    claim_workdir(CONFIG | {'seed': 2}, workdir)
  assert json.loads((workdir / 'config.json').read_text()) == CONFIG
  now = CONFIG | {'model': CONFIG['model'] | {'chosen': 0, 'products': 'dtype'}}
  claim_workdir(now, workdir)  # fields that there were not when it was begun


def test_values_may_be_changed_by_hand(workdir, caplog):
  changed = CONFIG | {'data': {'path': '/moved', 'fps': 8.0}, 'added': True}
  (workdir / 'config.json').write_text(json.dumps(changed))
  with caplog.at_level(logging.WARNING):
    assert read_config(workdir).to_dict() == changed
  assert not caplog.text


def test_parameters_are_read_as_they_were_saved(workdir):
  (workdir / 'parameters.json').unlink()  # which is for people
  params, meta = load_params(workdir)
  assert meta['step'] == 0 and params['b'].dtype == np.float16
  np.testing.assert_array_equal(params['a']['kernel'], PARAMS['a']['kernel'])
  assert read_shapes(workdir) == {'a/kernel': [2, 3], 'b': [3]}


def begin(folder, component):
  folder.mkdir(parents=True)
  (folder / 'config.json').write_text(json.dumps({'component': component}))


def test_where_a_folder_of_runs_is_given_those_that_fit_are_named(tmp_path):
  root = tmp_path / 'quickstart'
  begin(root / 'video', 'video')
  begin(root / 'autoencoder', 'autoencoder')
  (root / 'latents').mkdir()
  video, autoencoder = (repr(str(root / name)) for name in ('video', 'autoencoder'))
  for given in (root, root / 'vidoe'):  # the folder above, and a slip
    with pytest.raises(ConfigError) as refusal:
      read_config_of(given, 'video', 'a video model')
    assert str(refusal.value).endswith(f'(it has no config.json); did you mean {video}?')
    with pytest.raises(ConfigError) as refusal:
      read_config(given)
    both = f'{autoencoder} (autoencoder) or {video} (video)'
    assert str(refusal.value).endswith(f'did you mean {both}?')
  with pytest.raises(ConfigError, match='train first, or mend the path'):
    read_config_of(root, 'audio', 'an audio model')
  with pytest.raises(ConfigError) as refusal:
    read_config_of(root / 'autoencoder', 'video', 'a video model')
  assert str(refusal.value).endswith(f'expected a video model; did you mean {video}?')


def test_damaged_neighbours_are_not_named_and_many_are_cut(tmp_path):
  for name, text in DAMAGED.items():
    (tmp_path / f'damaged {name}').mkdir()
    (tmp_path / f'damaged {name}' / 'config.json').write_bytes(text)
  begin(tmp_path / 'odd', 'a\x1b[2J b')
  (tmp_path / 'odd2' / 'config.json').parent.mkdir()
  os.mkfifo(tmp_path / 'odd2' / 'config.json')
  for index in range(9):
    begin(tmp_path / f'run_{index}', 'audio')
  named = ' or '.join(repr(str(tmp_path / f'run_{index}')) for index in range(4))
  assert runs_near(tmp_path, 'audio') == f'did you mean {named}?'
  assert runs_near(tmp_path / 'nothing' / 'nowhere') == ''
