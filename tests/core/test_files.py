"""Files that are never seen half-written."""

import collections
import concurrent.futures
import os
import pathlib
import stat
import tempfile
import threading
import time

import pytest

from mgjax.core import files
from mgjax.core.errors import DataError
from mgjax.data.records.storage import open_storage


def test_json_comes_back_and_folders_are_made(tmp_path):
  path = tmp_path / 'a' / 'b.json'
  files.write_json(path, {'x': [1, 'é']})
  assert files.read_json(path) == {'x': [1, 'é']}
  for value in (1, 2):
    files.append_json_line(tmp_path / 'log' / 'a.jsonl', {'step': value})
  assert (tmp_path / 'log' / 'a.jsonl').read_text() == '{"step": 1}\n{"step": 2}\n'


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path, monkeypatch):
  path = tmp_path / 'a.txt'
  files.write_bytes(path, b'old')

  def fail(*_):
    raise OSError('the disk is full')

  monkeypatch.setattr(os, 'replace', fail)
  with pytest.raises(OSError, match='disk is full'):
    files.write_bytes(path, b'new')
  assert path.read_bytes() == b'old'
  assert os.listdir(tmp_path) == ['a.txt']


@pytest.mark.parametrize('links', [True, False])
def test_of_many_creators_one_wins_and_its_file_is_whole(tmp_path, monkeypatch, links):
  def refuse(*_):
    raise PermissionError('no hard links here')

  if not links:
    monkeypatch.setattr(os, 'link', refuse)
  path = tmp_path / 'a' / 'b'
  assert files.create(path, b'first')
  assert not files.create(path, b'second')
  assert path.read_bytes() == b'first'
  if links:  # without them two that come at the same instant cannot be told apart
    values = [bytes([value]) * 10_000 for value in range(16)]
    with concurrent.futures.ThreadPoolExecutor(16) as pool:
      created = list(pool.map(lambda value: files.create(tmp_path / 'a' / 'c', value), values))
    assert created.count(True) == 1
    assert (tmp_path / 'a' / 'c').read_bytes() == values[created.index(True)]
  assert {path.name for path in path.parent.iterdir()} <= {'b', 'c'}


@pytest.fixture
def umask():
  """Sets the umask of this process for a test."""
  before = os.umask(0o022)
  yield os.umask
  os.umask(before)


def mode(path):
  return stat.S_IMODE(path.stat().st_mode)


@pytest.mark.parametrize(
  ('mask', 'folder', 'file'),
  [(0o022, 0o755, 0o644), (0o077, 0o700, 0o600), (0o002, 0o775, 0o664), (0, 0o777, 0o666)],
)
def test_files_have_the_modes_of_the_user_and_private_ones_are_private(
  tmp_path, umask, mask, folder, file
):
  umask(mask)
  files.write_json(tmp_path / 'open' / 'a', {})
  files.create(tmp_path / 'open' / 'b', b'')
  assert mode(tmp_path / 'open') == folder
  assert {mode(path) for path in (tmp_path / 'open').iterdir()} == {file}
  (tmp_path / 'open' / 'a').chmod(0o666)
  files.write_json(tmp_path / 'open' / 'a', {}, private=True)
  files.write_bytes(tmp_path / 'private' / 'a', b'', private=True)
  assert mode(tmp_path / 'private') == 0o700
  assert mode(tmp_path / 'private' / 'a') == mode(tmp_path / 'open' / 'a') == 0o600


def test_a_file_that_another_program_put_there_gets_the_mode_too(tmp_path, umask):
  handle, made = tempfile.mkstemp(dir=tmp_path)
  os.close(handle)
  with files.replaced(tmp_path / 'a') as temporary:
    os.replace(made, temporary)
  assert mode(tmp_path / 'a') == 0o644
  with open_storage(str(tmp_path / 'records')).partial('part') as partial:
    assert mode(partial) == 0o644


def test_no_thread_makes_files_for_everybody_while_another_one_writes(tmp_path, umask, monkeypatch):
  """The umask is that of all threads: to set it to 0 for a moment opens what others make then."""
  monkeypatch.setattr(files, 'synchronise', lambda path: None)  # waits would be all there is
  before = threading.gettrace()

  def let_others(frame, *_):
    """Has another thread go on at each line of the module."""
    if frame.f_code.co_filename != files.__file__:
      return None
    time.sleep(0)
    return let_others

  def write(number):
    files.write_bytes(tmp_path / f'{number}.ours', b'')

  def open_plainly(number):
    (tmp_path / f'{number}.other').write_bytes(b'')

  threading.settrace(let_others)  # of the threads that begin now
  try:
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
      jobs = [pool.submit(each, n) for n in range(2000) for each in (write, open_plainly)]
      for job in jobs:
        job.result()
  finally:
    threading.settrace(before)
  modes = collections.Counter(mode(path) for path in tmp_path.iterdir())
  assert modes == {0o644: 4000}


def test_nothing_sets_the_umask():
  root = pathlib.Path(files.__file__).parents[2]
  sources = [path for name in ('mgjax', 'launch') for path in (root / name).rglob('*.py')]
  assert len(sources) > 400
  assert not [path for path in sources if 'umask(' in path.read_text()]


@pytest.mark.parametrize(
  ('data', 'why'),
  [
    (b'', 'no readable JSON'),
    (b'{"a": 1', 'no readable JSON'),
    (b'\xff\xfe\0', 'no readable JSON'),
    (b'[' * 100_000, 'nested too deep'),
    (b'9' * 5000, 'no readable JSON'),
    (b'{"name": "\\ud800"}', 'no readable JSON'),
    (b'{"dim": 16, "dim": 32}', 'an object names a field twice'),
    (b'[1]', 'holds list, expected dict'),
    (b'null', 'holds NoneType, expected dict'),
  ],
)
def test_what_is_no_json_is_a_sentence_that_names_the_file(tmp_path, data, why):
  path = tmp_path / 'side.json'
  path.write_bytes(data)
  with pytest.raises(DataError, match=rf"side\.json' .*{why}.*; write it again$"):
    files.read_json(path, error=DataError, mend='write it again')
  assert files.read_optional_json(path, lambda value: True) is None


def test_a_damaged_line_costs_itself_alone(tmp_path, caplog):
  lines = [b'{"a": 1}', b'{"a": ', b'\xff', b'{"a": "\\udfff"}', b'[]', b'{"a": 2}', b'{"a": 3']
  (tmp_path / 'lines.jsonl').write_bytes(b'\n'.join(lines))
  found = files.read_json_lines(tmp_path / 'lines.jsonl', lambda line: line['a'])
  assert [value for value, _ in found] == [1, 2]  # a crash cut the last one short
  assert "lines.jsonl' has 4 damaged lines (line 2)" in caplog.text
