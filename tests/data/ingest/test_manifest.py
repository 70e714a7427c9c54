"""A line of a manifest that cannot be used is rejected in words, and no other line suffers."""

import json
import re

import pytest

from mgjax.core.errors import DataError, StorageError
from mgjax.data.ingest.entries import MediaEntry, RejectedEntry, list_entries
from mgjax.data.ingest.open_inputs import open_inputs

LONG = 'x' * 140_000
# What a .csv says between two good lines, why its first row is rejected, and what else is good.
CSV = (
  ('a.mp4,half \udcff', 'is not UTF-8', []),
  ('\udcff\udcfe', 'is not UTF-8', []),
  ('a.mp4,x,1' + '0' * 400, 'start is', []),
  ('a.mp4,x,nan', 'start is', []),
  ('d/' * 2500 + 'a.mp4,x', 'name too long', []),
  ('n' * 300 + '.mp4,x', 'name too long', []),
  ('a.mp4,"an open quote', 'not closed', []),
  ('"a.mp4,an open quote', 'not closed', []),
  ('a.mp4,"b\nc.mp4,d\ne.mp4,"f"', 'not closed', ['d', 'f']),
  ('a.mp4,"b\nc.mp4,d"', 'not closed', ['d"']),
  ('a.mp4,"closed" too early', 'is not csv', []),
  (f'a.mp4,{LONG}', 'field larger', []),
  (f'a.mp4,"{LONG}', 'field larger', []),
  ('a.mp4,' + 'x' * 1_100_000, 'more than', []),
  ('a.mp4,"' + 'x,' * 600_000, 'more than', []),
  ('a.mp4,x,,,', 'more fields', []),
  ('a.mp4', 'no caption', []),
  ('\0', 'NUL', []),
  ('a\0.mp4,x', 'NUL', []),
  ('a","x\n' * 300, 'not closed', []),  # each line closes a quote, and opens another
)
JSON = {
  r'{"video": "\ud800.mp4", "caption": "x"}': 'lone surrogate',
  r'{"video": "\udcff.mp4", "caption": "x"}': 'lone surrogate',
  r'{"video": "a.mp4", "caption": "half \ud83d"}': 'lone surrogate',
  '{"video": "a.mp4", "caption": "x", "start": 1' + '0' * 400 + '}': 'start is',
  '{"video": "a.mp4", "caption": "x", "start": ' + '9' * 5000 + '}': 'is not JSON',
  '{"video": "a.mp4", "caption": "x", "start": true}': 'start is',
  '{"video": "a.mp4", "caption": "x", "start": ' + '[' * 500 + ']' * 500 + '}': 'start is',
  '{"video": "a.mp4", "video": "b.mp4", "caption": "x"}': 'twice',
  json.dumps({'video': 'd/' * 2500 + 'a.mp4', 'caption': 'x'}): 'name too long',
  '{"video": "a.mp4", "caption": "' + 'x' * 1_100_000 + '"}': 'more than',
  '{"video": "a.mp4", "caption": "\udcff"}': 'is not UTF-8',
  '{"video": "a.mp4", "caption": "an open quote}': 'is not JSON',
  '[' * 100_000: 'is not JSON',
  '{"video": "a.mp4"}': 'has no caption',
  '{"video": 3, "caption": "x"}': 'has no video',
  '[1]': 'is not a JSON object',
  '{"video": "a.mp4", "caption": "x", "start": -1}': 'start is',
  '{"video": "a.mp4", "caption": "x", "start": NaN}': 'start is',
}


def listed(path, text):
  path.write_bytes(text.encode('utf-8', 'surrogateescape'))
  entries = list_entries(path)
  good = [entry.caption for entry in entries if isinstance(entry, MediaEntry)]
  return good, [entry for entry in entries if isinstance(entry, RejectedEntry)]


@pytest.mark.parametrize(('line', 'part', 'also'), CSV, ids=range(len(CSV)))
def test_a_line_of_csv_is_rejected_alone(tmp_path, line, part, also):
  text = f'video,caption,start\na.mp4,"before, it",\n{line}\nb.mp4,after,1\nc.mp4,"the\nlast",'
  good, bad = listed(tmp_path / 'list.csv', text)
  assert good == ['before, it', *also, 'after', 'the last']
  assert len(bad) == (300 if line.count('\n') > 9 else 1) and re.search(part, bad[0].reason, re.I)
  assert bad[0].name.startswith('line 3')
  assert len(bad[0].name) < 400 and len(bad[0].reason) < 400
  assert open_inputs(tmp_path / 'list.csv').identity


@pytest.mark.parametrize('line', JSON, ids=lambda line: repr(line[:40]))
def test_a_line_of_jsonl_is_rejected_alone(tmp_path, line):
  first, last = (json.dumps({'video': 'a.mp4', 'caption': each}) for each in ('before', 'after'))
  good, (bad,) = listed(tmp_path / 'list.jsonl', f'{first}\n{line}\n{last}')
  assert good == ['before', 'after'] and re.search(JSON[line], bad.reason, re.I)
  assert bad.name.startswith('line 2') and len(bad.name) < 400 and len(bad.reason) < 400
  assert bad.name.isprintable() and open_inputs(tmp_path / 'list.jsonl').identity


def test_quoted_text_may_have_lines_quotes_and_commas(tmp_path):
  text = 'caption,video\r\n"one\r\ntwo, ""three""\r\n\r\nfour",a.mp4\r\n"five\nsix",b.mp4\r\n'
  good, bad = listed(tmp_path / 'list.csv', text)
  assert good == ['one two, "three" four', 'five six'] and not bad
  assert listed(tmp_path / 'mac.csv', 'video,caption\ra.mp4,one\rb.mp4,"t,wo"\r') == (
    ['one', 't,wo'],
    [],
  )


def test_columns_are_named_once(tmp_path):
  for header, part in {
    'video,caption,caption': 'two columns named caption',
    'video,start,caption,start': 'two columns named start',
    'video,"caption': 'not closed',
    'caption,' + LONG: 'field larger',
    '\udcff,caption': 'UTF-8',
  }.items():
    with pytest.raises(DataError, match=part):
      listed(tmp_path / 'list.csv', f'{header}\na.mp4,x\n')


def test_how_much_of_a_manifest_is_read_is_told(tmp_path):
  lines = ['video,caption', *(f'{index}.mp4,"text, {index}"' for index in range(9000))]
  (tmp_path / 'list.csv').write_text('\n'.join([*lines, '']))
  told = []
  open_inputs(tmp_path / 'list.csv', progress=lambda *numbers: told.append(numbers))
  assert told[0] == (4096, 9001) and told[-1] == (9001, 9001)
  assert sorted(told) == told and len(told) == 3


def test_a_name_that_the_disk_refuses_is_told_from_a_disk_that_is_gone(tmp_path, monkeypatch):
  (tmp_path / 'list.csv').write_text('video,caption\na.mp4,x\n')
  inputs = open_inputs(tmp_path / 'list.csv')
  assert inputs[0] == RejectedEntry('line 2: a.mp4', 'there is no such file')

  def fail(self, **_):
    raise OSError(5, 'Input/output error', str(self))

  monkeypatch.setattr(type(tmp_path), 'stat', fail)
  with pytest.raises(StorageError, match='does not answer'):
    inputs[0]
