"""A video is decoded once, all scorers see the same frames, and what is wrong stands in its row."""

import collections
import io
from typing import ClassVar

import numpy as np
import pytest
from PIL import Image

from mgjax.core.errors import StorageError
from mgjax.data.ingest.entries import RejectedEntry
from mgjax.data.ingest.inputs import Input
from mgjax.lab.curation import frames, measure
from mgjax.lab.curation.measure import measure_video
from mgjax.lab.curation.scores import scorer
from mgjax.lab.curation.settings import ClipSettings, MeasureSettings
from tests.data.media.real_clips import real_clip

NOTHING = MeasureSettings(scorers=())


def given(path, caption='bikes'):
  return Input(path.name, caption, path.stat().st_size, path.read_bytes, path=path)


class Counting(scorer.Scorer):
  """Notes what it saw."""

  saw: ClassVar = collections.defaultdict(list)

  def __init__(self, settings, name, side, rate):
    self.name, self.side, self.rate = name, side, rate

  def see(self, frame):
    self.saw[self.name].append((frame.number, min(frame.pixels.shape[:2])))

  def scores(self, start, end):
    return {'length': end - start}


@pytest.fixture
def counted(monkeypatch):
  """Three scorers, and a list of what was decoded: (file, frames)."""
  kinds = {'whole': (None, None), 'small': (64, None), 'seldom': (32, 2.0)}
  Counting.saw.clear()
  makers = [
    lambda settings, name=name, kind=kind: Counting(settings, name, *kind)
    for name, kind in kinds.items()
  ]
  monkeypatch.setattr(measure, 'make_scorers', lambda settings: [make(settings) for make in makers])
  decoded, stream = [], frames.stream

  def counting(file):
    decoded.append([str(file), 0])
    for frame in stream(file):
      decoded[-1][1] += 1
      yield frame

  monkeypatch.setattr(frames, 'stream', counting)
  return decoded


def test_a_video_is_decoded_once_for_all_scorers(counted):
  path = real_clip('bikes.mp4')
  rows = measure_video(given(path), MeasureSettings(clips=ClipSettings(shortest=1.0)))
  assert counted == [[str(path), 250]]
  saw = Counting.saw
  assert [number for number, _ in saw['whole']] == list(range(250))
  assert saw['small'] == [(number, 64) for number in range(250)]
  assert len(saw['seldom']) == 20 and {side for _, side in saw['seldom']} == {32}
  assert {size for _, size in saw['whole']} == {272}
  for row in rows:
    assert row['decoded'] == row['packets'] == 250
    assert row['whole_length'] == row['seldom_length'] == row['end'] - row['start']
    costs = {'probe', 'decode', 'shots', 'pictures', 'whole', 'small', 'seldom'}
    assert row['seconds_of'].keys() == costs


def test_a_row_says_what_a_clip_is():
  path = real_clip('bikes.mp4')
  first, second = measure_video(given(path), MeasureSettings((), clips=ClipSettings(2.0)), 7)
  assert (first['video'], first['clip'], second['clip']) == (
    'bikes.mp4',
    'bikes.mp4#0',
    'bikes.mp4#1',
  )
  assert first['place'] == 7 and first['caption'] == 'bikes' and first['error'] is None
  assert (first['width'], first['height'], first['fps']) == (640, 272, 25)
  assert first['seconds'] == pytest.approx(10.0)
  assert first['shots'] == 6 and not first['sound']
  # The longest shots of bikes are from 3.04 to 5.48 s and from 5.48 to 7.48, or 7.48 to 9.68 s.
  assert first['start'] == pytest.approx(3.04) and first['end'] == pytest.approx(5.48)
  assert second['start'] == pytest.approx(7.48) and second['frames'] == 55
  picture = np.asarray(Image.open(io.BytesIO(first['middle'])))
  assert min(picture.shape[:2]) == 144


def test_what_cannot_be_measured_is_a_row_with_the_reason(tmp_path):
  broken = tmp_path / 'broken.mp4'
  broken.write_bytes(real_clip('bikes.mp4').read_bytes()[:200_000])
  (row,) = measure_video(given(broken), NOTHING, 3)
  assert set(row) == {'video', 'clip', 'place', 'error'}
  assert (row['video'], row['place']) == ('broken.mp4', 3) and row['error']
  (row,) = measure_video(RejectedEntry('gone.mp4', 'there is no such file'), NOTHING)
  assert row['error'] == 'there is no such file'


def test_a_disk_that_does_not_answer_is_no_fault_of_the_video():
  def load():
    raise StorageError('the disk is gone')

  with pytest.raises(StorageError):
    measure_video(Input('a.mp4', 'a', 9, load), NOTHING)
