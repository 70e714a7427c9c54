"""Ways to longer sound are compared on the same clips, at the joints that each of them has."""

import pytest

from mgjax.data.media.audio import read_audio
from mgjax.lab.evaluation.long_audio import WAYS, compare_ways, joints_of, long_clips, write_heard
from mgjax.lab.evaluation.record.measured import table_of
from mgjax.sections.audio.extend import Extension


def test_long_clips_bounce_all_the_way(tracker):
  """A lap has 2.5 + 1.25 hits on average; they go on to the end."""
  (clip,) = long_clips(tracker, factor=4, count=1)
  assert clip['video'].shape[0] == 4 * 10 and len(clip['audio']) == 4 * 19_200
  assert 13 <= len(clip['events']) <= 17
  assert clip['events'][-1] > 0.75 * 1.6


def test_joints_are_where_windows_end(tracker):
  joints = {how: joints_of(tracker, 1.6, Extension(how=how)) for how in WAYS}
  assert joints['concatenate'] == pytest.approx([0.4, 0.8, 1.2])
  assert joints['autoregressive'][0] == pytest.approx(0.4) and len(joints['autoregressive']) > 3
  assert len(joints['multi_diffusion']) > len(joints['autoregressive'])


def test_every_way_is_judged(tracker, tmp_path):
  measured, heard = compare_ways(tracker, factor=4, clips=1, candidates=2)
  assert list(measured.record) == list(WAYS) and list(heard) == ['original', *WAYS]
  for how in WAYS:
    assert heard[how].shape == (4 * 19_200, 1), how
    assert measured.record[how]['seams']['ratio'] > 0
    assert measured.record[how]['scores']['clips'] == 1
    ratio = measured.metrics[f'{how}/seams/ratio'].value.value
    assert ratio == measured.record[how]['seams']['ratio']
  assert '1 clip(s) of 1.6 s' in table_of(measured)
  sheet, *wavs = write_heard(tmp_path, heard, tracker.rate)
  assert sheet.exists() and [read_audio(wav).shape for wav in wavs] == [(4 * 19_200, 1)] * 4
