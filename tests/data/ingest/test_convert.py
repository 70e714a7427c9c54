"""Clips become rows, and each one that does not is named with its reason, restarts or not."""

import functools
import json
import os
import signal
import threading

import numpy as np
import pytest

from mgjax.core.errors import ConfigError, DataError, StorageError
from mgjax.data.ingest.clip_check import open_row
from mgjax.data.ingest.convert import ConvertOptions, Workers, convert
from mgjax.data.ingest.inputs import Input, Inputs
from mgjax.data.ingest.open_inputs import open_inputs
from mgjax.data.media.containers import Limits
from mgjax.data.media.video import read_clip
from mgjax.data.records.reader import Records, verify_records
from mgjax.data.records.writer import Share
from tests.data.media.test_deadlines import long_gif
from tests.data.media.test_video import numbered_file, numbers


@pytest.fixture(scope='module')
def data(tmp_path_factory):
  return numbered_file(tmp_path_factory.mktemp('clip'), count=12).read_bytes()


class Made(Inputs):
  """Every third input is no video; reading number `broken` fails as a lost disk does."""

  def __init__(self, data, count, broken=None):
    self.data, self.count, self.broken = data, count, broken
    self.identity = {'count': count}
    self.read = []

  def __len__(self):
    return self.count

  def between(self, first, last):
    for index in range(first, last):
      yield Input(f'clip {index}', f'caption {index}', 1000, lambda index=index: self.load(index))

  def load(self, index):
    if index == self.broken:
      raise StorageError('the disk is gone')
    self.read.append(index)
    return b'no video' if index % 3 == 2 else self.data


def reasons(directory):
  lines = (directory / 'rejected.jsonl').read_text().splitlines()
  return {line['entry']: line['reason'] for line in map(json.loads, lines)}


def test_every_input_is_a_row_or_a_reason(tmp_path, data):
  told = []
  outcome = convert(
    Made(data, 20), tmp_path, rows_per_shard=4, progress=lambda *numbers: told.append(numbers)
  )
  records = Records(tmp_path)
  assert outcome.finished and outcome.inputs == 20 == outcome.rows + len(outcome.rejected)
  assert [row['source'] for row in records] == [f'clip {i}' for i in range(20) if i % 3 != 2]
  assert [row['caption'] for row in records] == [f'caption {i}' for i in range(20) if i % 3 != 2]
  assert list(reasons(tmp_path)) == [f'clip {i}' for i in range(20) if i % 3 == 2]
  assert set(reasons(tmp_path).values()) == {'is a text file, not a video'}
  assert str(outcome).startswith('14 clips, 6 rejected (6 x is a text file, not a video')
  assert told == [(i, 20) for i in range(21)]
  np.testing.assert_array_equal(records.column('height'), [64] * 14)
  assert records.summary == {'inputs': 20, 'rejected': 6} and not verify_records(tmp_path)
  clip = read_clip(open_row(records[13]), frames=12, size=(64, 64), fps=25)
  assert numbers(clip) == list(range(12))


def test_a_lost_disk_stops_it_and_the_same_command_goes_on(tmp_path, data):
  with pytest.raises(StorageError, match='the disk is gone'):
    convert(Made(data, 20, broken=9), tmp_path / 'a', rows_per_shard=4)
  with pytest.raises(DataError, match='unfinished'):
    Records(tmp_path / 'a')
  again = Made(data, 20)
  outcome = convert(again, tmp_path / 'a', rows_per_shard=4)
  assert sorted(again.read) == list(range(8, 20))
  convert(Made(data, 20), tmp_path / 'b', rows_per_shard=4)
  assert reasons(tmp_path / 'a') == reasons(tmp_path / 'b') and outcome.rows == 14
  for one, other in zip(Records(tmp_path / 'a'), Records(tmp_path / 'b'), strict=True):
    assert one['source'] == other['source']
    np.testing.assert_array_equal(one['media'], other['media'])
  names = {path.name for path in (tmp_path / 'a').iterdir()}
  assert names == {path.name for path in (tmp_path / 'b').iterdir()}
  third = Made(data, 20)
  assert str(convert(third, tmp_path / 'a', rows_per_shard=4)) == str(outcome) and not third.read


def test_processes_share_the_work_and_the_last_one_finishes(tmp_path, data):
  sources = [Made(data, 22) for _ in range(3)]
  outcomes = [
    convert(source, tmp_path, rows_per_shard=4, share=Share(i, 3))
    for i, source in enumerate(sources)
  ]
  assert [outcome.finished for outcome in outcomes] == [False, False, True]
  assert sorted(i for source in sources for i in source.read) == list(range(22))
  assert len(Records(tmp_path)) == 15 and len(reasons(tmp_path)) == 7


def test_other_inputs_or_another_treatment_need_another_directory(tmp_path, data):
  convert(Made(data, 4), tmp_path)
  with pytest.raises(ConfigError, match='begun with other values'):
    convert(Made(data, 5), tmp_path)
  with pytest.raises(ConfigError, match=r'treatment\.full'):
    convert(Made(data, 4), tmp_path, ConvertOptions(full=True))
  convert(Made(data, 4), tmp_path, ConvertOptions(gop=3))  # of no account without encoding anew


def test_nothing_usable_is_a_sentence_and_its_reasons_are_kept(tmp_path):
  with pytest.raises(DataError, match=r'no usable clip: 0 clips, 3 rejected \(3 x is a text file'):
    convert(Made(b'no video', 3), tmp_path)
  assert len(reasons(tmp_path)) == 3
  with pytest.raises(DataError, match='nothing to convert'):
    convert(Made(b'', 0), tmp_path / 'none')


def test_what_is_too_large_is_never_read(tmp_path, data):
  class Large(Made):
    def between(self, first, last):
      for index, each in enumerate(super().between(first, last)):
        size = 2 << 20 if index == 1 else each.size
        yield Input(each.name, each.caption, size, each.load)

  source = Large(data, 2)
  convert(source, tmp_path, ConvertOptions(megabytes=1))
  assert source.read == [0]
  assert reasons(tmp_path) == {'clip 1': 'has 2 MB, more than 1; cut it into clips'}


def test_clips_that_wait_are_bounded_in_bytes(tmp_path, data):
  alive, most, lock = 0, 0, threading.Lock()

  class Held(bytes):
    def __new__(cls, value):
      nonlocal alive, most
      with lock:
        alive += 1
        most = max(most, alive)
      return super().__new__(cls, value)

    def __del__(self):
      nonlocal alive
      with lock:
        alive -= 1

  class Heavy(Made):
    def between(self, first, last):
      for index in range(first, last):
        yield Input(f'clip {index}', 'caption', 50 << 20, lambda: Held(self.data))

  convert(Heavy(data, 12), tmp_path, workers=Workers(threads=4))
  assert 1 <= most <= 4  # 128 MB hold two, one is being written, and the next is read meanwhile


def test_a_manifest_says_from_when_on_a_clip_counts(tmp_path, data):
  (tmp_path / 'in').mkdir()
  (tmp_path / 'in' / 'a.mp4').write_bytes(data)
  lines = [('a.mp4', 'whole', ''), ('a.mp4', 'later', '0.2'), ('a.mp4', 'too late', '9')]
  text = '\n'.join(','.join(line) for line in [('video', 'caption', 'start'), *lines])
  (tmp_path / 'in' / 'list.csv').write_text(text)
  convert(open_inputs(tmp_path / 'in' / 'list.csv'), tmp_path / 'out')
  assert Records(tmp_path / 'out').column('start').tolist() == [-1.0, 0.2]
  assert list(reasons(tmp_path / 'out').values()) == ['lasts 0.48 s, but counts from 9.00 s on']


def kill(data):
  os.kill(os.getpid(), signal.SIGKILL)
  return data


class Deadly(Made):
  """Inputs 4 and 11 kill whoever reads them."""

  def between(self, first, last):
    for index in range(first, last):
      load = functools.partial(kill if index in (4, 11) else bytes, self.data)
      yield Input(f'clip {index}', f'caption {index}', 1000, load)


def test_a_clip_that_kills_its_decoder_is_rejected_alone(tmp_path, data):
  outcome = convert(Deadly(data, 14), tmp_path, rows_per_shard=7, workers=Workers(2, isolate=True))
  assert outcome.rows == 12
  assert reasons(tmp_path) == dict.fromkeys(
    ['clip 4', 'clip 11'], 'ends its process (SIGKILL), in each of 2 tries'
  )
  assert [row['source'] for row in Records(tmp_path)] == [
    f'clip {i}' for i in range(14) if i not in (4, 11)
  ]


def test_a_clip_without_end_is_rejected_in_time_and_those_behind_it_are_taken(tmp_path, data):
  endless = long_gif(tmp_path / 'a.gif', count=9000).read_bytes()

  class Slow(Made):
    def load(self, index):
      return endless if index == 0 else self.data

  treatment = ConvertOptions(full=True, reencode=True)
  convert(
    Slow(data, 6), tmp_path / 'out', treatment, workers=Workers(limits=Limits(wall_seconds=1.0))
  )
  assert reasons(tmp_path / 'out') == {'clip 0': 'reading it took over 1 s'}
  assert len(Records(tmp_path / 'out')) == 5


def test_names_and_reasons_are_printable_whatever_files_are_called(tmp_path, data):
  class Coloured(Made):
    def between(self, first, last):
      for each in super().between(first, last):
        yield Input(f'{each.name} \x1b[31m\u202e\udcff.mp4', each.caption, each.size, each.load)

    def load(self, index):
      if index == 1:
        raise ZeroDivisionError('\x1b[2J')
      return super().load(index)

  outcome = convert(Coloured(data, 3), tmp_path)
  assert str(outcome).isprintable() and '\\x1b[2J' in str(outcome)
  lines = (tmp_path / 'rejected.jsonl').read_text()
  assert lines.replace('\n', '').isprintable()
  assert reasons(tmp_path).popitem()[1] == 'is a text file, not a video'
