"""Files that are never seen half-written."""

import concurrent.futures
import os
import stat

import pytest

from mgjax.core import files
from mgjax.core.errors import DataError


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


def test_others_may_read_what_was_written(tmp_path):
  before = os.umask(0o022)
  try:
    files.write_bytes(tmp_path / 'a', b'')
  finally:
    os.umask(before)
  assert stat.S_IMODE((tmp_path / 'a').stat().st_mode) == 0o644


@pytest.mark.parametrize(
  ('data', 'why'),
  [
    (b'', 'no readable JSON'),
    (b'{"a": 1', 'no readable JSON'),
    (b'\xff\xfe\0', 'no readable JSON'),
    (b'[' * 100_000, 'nested too deep'),
    (b'9' * 5000, 'no readable JSON'),
    (b'{"name": "\\ud800"}', 'no readable JSON'),
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
