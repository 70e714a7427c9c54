"""Tokenizer files with the weights of an encoder: in, checked, and out again."""

import hashlib
import json
import shutil

import pytest
from safetensors.numpy import save_file

from configs.text import byt5_large, metaclip_text, t5_base
from mgjax.apps.weights.import_export import export_weights, import_weights
from mgjax.core.errors import ConfigError
from mgjax.sections.text.tokenizer_folder import load_tokenizer_of
from mgjax.training.checkpoints.load_params import load_params
from tests import binaries
from tests.models.clip.vectors import tensors_of, vectors
from tests.models.text.test_t5_weights import folder
from tests.models.text.test_tokenizer_files import word_level as write_json

TEXT = 'a cat'
EXTRA = {'tokenizer_config.json': '{"model_max_length": 512}\n', 'README.md': 'not a tokenizer'}


@pytest.fixture(scope='module')
def weights(tmp_path_factory):
  """A published T5 without its tokenizer."""
  return folder(tmp_path_factory.mktemp('given') / 't5', 't5_1_1')


@pytest.fixture
def given(weights, tmp_path):
  """The same with one."""
  given = shutil.copytree(weights, tmp_path / 'given')
  write_json(given / 'tokenizer.json')
  for name, text in EXTRA.items():
    (given / name).write_text(text)
  return given


def test_files_beside_the_weights_go_in_and_come_back(given, tmp_path, caplog):
  with caplog.at_level('INFO', 'mgjax'):
    import_weights(t5_base.get_config(), given, tmp_path / 'run')
  names = ['tokenizer.json', 'tokenizer_config.json']
  wanted = {name: hashlib.sha256((given / name).read_bytes()).hexdigest() for name in names}
  _, meta = load_params(tmp_path / 'run')
  assert meta['notes']['source']['tokenizer'] == wanted
  assert {f'{digest}  {name}' for name, digest in wanted.items()} <= set(caplog.messages)
  assert load_tokenizer_of(tmp_path / 'run')(TEXT).tolist() == [0, 7]
  export_weights(tmp_path / 'run', tmp_path / 'out', 'transformers')
  for name in names:
    assert (tmp_path / 'out' / name).read_bytes() == (given / name).read_bytes()
  out = {file.name for file in (tmp_path / 'out').iterdir()}
  assert out == {'config.json', 'model.safetensors', *names}


def test_the_project_s_own_file_brings_the_tokenizer_along(given, tmp_path):
  import_weights(t5_base.get_config(), given, tmp_path / 'one')
  export_weights(tmp_path / 'one', tmp_path / 'files/one.safetensors')
  import_weights(t5_base.get_config(), tmp_path / 'files/one.safetensors', tmp_path / 'two')
  assert load_tokenizer_of(tmp_path / 'two')(TEXT).tolist() == [0, 7]
  export_weights(tmp_path / 'two', tmp_path / 'files/two.safetensors')
  one, two = (tmp_path / f'files/{name}.safetensors' for name in ('one', 'two'))
  assert one.read_bytes() == two.read_bytes()
  other = write_json(tmp_path / 'other/tokenizer.json', end=9)
  import_weights(t5_base.get_config(), one, tmp_path / 'three', tokenizer=other)
  assert load_tokenizer_of(tmp_path / 'three')(TEXT).tolist() == [0, 9]


def test_a_tokenizer_may_lie_elsewhere(weights, tmp_path):
  file = write_json(tmp_path / 'elsewhere/small.json', end=8)
  config = t5_base.get_config()
  config.model.activation = 'gelu'  # a file alone does not say it
  import_weights(config, weights / 'model.safetensors', tmp_path / 'run', file)
  folder = tmp_path / 'run/tokenizer'
  assert sorted(each.name for each in folder.iterdir()) == ['sha256.json', 'tokenizer.json']
  assert load_tokenizer_of(tmp_path / 'run').end == 8


def test_the_binary_takes_a_tokenizer_or_says_what_it_wants(weights, tmp_path):
  import_ = ('weights', 'import', '--config=configs/text/t5_base.py', f'--input={weights}')
  wrong, right = tmp_path / 'tokenizer.txt', write_json(tmp_path / 'tokenizer.json')
  wrong.write_bytes(b'PNG')
  for path, code in ((wrong, 2), (right, 0)):
    done = binaries.run(*import_, f'--workdir={tmp_path / "run"}', f'--tokenizer={path}')
    assert done.returncode == code, done.stderr
    if code:
      assert 'is no tokenizer file by its name; expected spiece.model' in done.stderr
      assert 'Traceback' not in done.stderr and not (tmp_path / 'run').exists()
  assert load_tokenizer_of(tmp_path / 'run')(TEXT).tolist() == [0, 7]


def test_without_a_tokenizer_it_is_said_how_to_add_one(weights, tmp_path, caplog):
  import_weights(t5_base.get_config(), weights, tmp_path / 'run')
  (warning,) = [record for record in caplog.records if 'tokenizer' in record.getMessage()]
  assert warning.levelname == 'WARNING'
  assert '--tokenizer=FILE in another import or by hand in the folder' in warning.getMessage()
  with pytest.raises(ConfigError, match=r'has no tokenizer; expected spiece\.model.*: copy what'):
    load_tokenizer_of(tmp_path / 'run')
  write_json(tmp_path / 'run/tokenizer/tokenizer.json')
  assert load_tokenizer_of(tmp_path / 'run')(TEXT).tolist() == [0, 7]
  export_weights(tmp_path / 'run', tmp_path / 'out', 'transformers')
  assert (tmp_path / 'out/tokenizer.json').is_file()
  export_weights(tmp_path / 'run', tmp_path / 'own.safetensors')
  import_weights(t5_base.get_config(), tmp_path / 'own.safetensors', tmp_path / 'again')
  assert load_tokenizer_of(tmp_path / 'again')(TEXT).tolist() == [0, 7]


def test_bytes_need_no_file(weights, tmp_path, caplog):
  config = byt5_large.get_config()
  import_weights(config, weights, tmp_path / 'run')
  assert not [message for message in caplog.messages if 'tokenizer' in message]
  assert load_tokenizer_of(tmp_path / 'run')('a').tolist() == [100, 1]
  with pytest.raises(ConfigError, match='this t5 is one of bytes and needs no file; leave it out'):
    import_weights(config, weights, tmp_path / 'other', tokenizer=tmp_path / 'tokenizer.json')


def test_a_damaged_tokenizer_leaves_nothing_behind(weights, tmp_path):
  given, elsewhere = shutil.copytree(weights, tmp_path / 'given'), tmp_path / 'elsewhere'
  elsewhere.mkdir()
  for place in (given, elsewhere):
    (place / 'tokenizer.json').write_bytes(b'\x89PNG')
  for source, tokenizer in ((given, None), (weights, elsewhere)):
    with pytest.raises(ConfigError, match='cannot be read as a tokenizer'):
      import_weights(t5_base.get_config(), source, tmp_path / 'run', tokenizer)
    assert not (tmp_path / 'run').exists()


@pytest.mark.parametrize(
  ('end', 'message'), [(40, 'makes tokens up to 40, the encoder has 40'), (36, 'expects 37: it is')]
)
def test_a_tokenizer_of_another_encoder_is_refused(end, message, tmp_path):
  given = tmp_path / 'given'
  write_json(given / 'tokenizer.json', end=end)
  save_file(tensors_of('text', 'metaclip'), given / 'model.safetensors')
  (given / 'config.json').write_text(json.dumps(vectors('text', 'metaclip')['config']))
  with pytest.raises(ConfigError, match=message):
    import_weights(metaclip_text.get_config(), given, tmp_path / 'run')
  write_json(given / 'tokenizer.json', end=37)
  import_weights(metaclip_text.get_config(), given, tmp_path / 'run')
  assert load_tokenizer_of(tmp_path / 'run').end == 37
  write_json(tmp_path / 'run/tokenizer/tokenizer.json', end=36)
  with pytest.raises(ConfigError, match=r'has changed since it was imported; put it back, or rem'):
    load_tokenizer_of(tmp_path / 'run')
  with pytest.raises(ConfigError, match='has changed since it was imported'):
    export_weights(tmp_path / 'run', tmp_path / 'out', 'transformers')
  assert not (tmp_path / 'out').exists()
  (tmp_path / 'run/tokenizer/sha256.json').unlink()
  with pytest.raises(ConfigError, match='ends a text with 36, the encoder expects 37'):
    load_tokenizer_of(tmp_path / 'run')
