"""Files that are never seen half-written."""

import json
import os
import stat

import pytest

from mgjax.core import files


def test_json_comes_back_and_folders_are_made(tmp_path):
  path = tmp_path / 'a' / 'b.json'
  files.write_json(path, {'x': [1, 'é']})
  assert files.read_json(path) == {'x': [1, 'é']}


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


def test_others_may_read_what_was_written(tmp_path):
  before = os.umask(0o022)
  try:
    files.write_bytes(tmp_path / 'a', b'')
  finally:
    os.umask(before)
  assert stat.S_IMODE((tmp_path / 'a').stat().st_mode) == 0o644


def test_lines_are_appended(tmp_path):
  for value in (1, 2):
    files.append_json_line(tmp_path / 'log' / 'a.jsonl', {'step': value})
  lines = (tmp_path / 'log' / 'a.jsonl').read_text().splitlines()
  assert [json.loads(line) for line in lines] == [{'step': 1}, {'step': 2}]
