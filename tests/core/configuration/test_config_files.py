"""Configurations are found by name or path, and what is wrong with one is a sentence."""

import contextlib
import os

import pytest

from mgjax.core.configuration.config_files import find_config, load_config
from mgjax.core.errors import ConfigError
from tests.tiny import CHECKOUT

OWN = 'from ml_collections import ConfigDict\n'


def write(folder, text, name='own.py'):
  (folder / name).write_text(text)
  return str(folder / name)


@pytest.mark.parametrize('name', ['digits/video', 'digits/video.py', 'configs/digits/video.py'])
def test_a_name_or_a_path_will_do(name, monkeypatch):
  monkeypatch.chdir(CHECKOUT)
  assert load_config(name).component == 'video'


def test_names_are_found_from_anywhere(tmp_path, monkeypatch):
  monkeypatch.chdir(tmp_path)
  assert load_config('video/t2iv_256:30b').model.dim == 6144
  (tmp_path / 'configs/digits').mkdir(parents=True)
  empty = f'{OWN}def get_config(): return ConfigDict()'
  own = write(tmp_path / 'configs/digits', empty, 'video.py')
  assert find_config('digits/video').samefile(own)  # where one stands comes first


def test_changes_keep_the_types_of_the_file():
  config = load_config('digits/video', {'model.depth': 8, 'model.positions': (1, 2, 3)})
  assert config.model.depth == 8 and config.model.positions == (1, 2, 3)
  with pytest.raises(ConfigError, match=r'unknown key model\.dpeth; did you mean model\.depth\?'):
    load_config('digits/video', {'model.dpeth': 8})
  with pytest.raises(ConfigError, match=r"model\.depth = 'eight': .*the file has 4"):
    load_config('digits/video', {'model.depth': 'eight'})


@pytest.mark.parametrize(
  ('text', 'said'),
  [
    ('def get_config(: pass', 'SyntaxError'),
    ('', 'has no attribute'),
    ('def get_config(): return {}', 'get_config gave dict, not a ConfigDict'),
    ('def get_config(): raise ValueError("no")', 'ValueError: no'),
    ('import nowhere_at_all', 'ModuleNotFoundError'),
    ('import sys; sys.exit(0)', 'SystemExit: 0; expected get_config to return a ConfigDict'),
    ('def get_config(): raise SystemExit', 'SystemExit'),
    ('def get_config(): raise BaseException("odd")', 'BaseException: odd'),
    ('import asyncio\nraise asyncio.CancelledError', 'CancelledError'),
    ('def get_config(): return get_config()', 'RecursionError'),
  ],
)
def test_what_is_no_configuration_is_a_sentence(text, said, tmp_path):
  with pytest.raises(ConfigError, match=said):
    load_config(write(tmp_path, text))


def test_a_configuration_that_prints_and_moves_changes_neither_output_nor_folder(
  tmp_path, capfd, monkeypatch
):
  monkeypatch.chdir(tmp_path)
  text = 'import os\nfrom ml_collections import ConfigDict\nprint("read")\nos.chdir("/")\n'
  for ends in ('def get_config(): return ConfigDict()', 'raise ValueError'):
    with contextlib.suppress(ConfigError):
      load_config(write(tmp_path, text + ends))
    assert os.getcwd() == os.fspath(tmp_path)
  assert capfd.readouterr() == ('', 'read\nread\n')


@pytest.mark.timeout(60)  # where it waits for ever
def test_pipes_and_unreadable_files_among_configurations_are_passed_over(tmp_path, monkeypatch):
  (tmp_path / 'configs').mkdir()
  os.mkfifo(tmp_path / 'configs' / 'pipe.py')
  (tmp_path / 'configs' / 'loop.py').symlink_to('loop.py')
  (tmp_path / 'configs' / 'folder.py').mkdir()
  (tmp_path / 'configs' / 'bytes.py').write_bytes(b'\xff\xfe get_config')
  monkeypatch.chdir(tmp_path)
  for name in ('pipe', 'configs/pipe.py', 'digits/vidoe', 'loop', 'folder'):
    with pytest.raises(ConfigError, match='there is no such file'):
      load_config(name)


def test_a_file_that_is_not_there_is_a_sentence_with_a_hint():
  with pytest.raises(ConfigError, match=r'there is no such file; did you mean digits/video\?'):
    load_config('digits/vidoe')
