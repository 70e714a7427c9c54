"""What people decide is on the disk at once, and what they leave is what is cut."""

import dataclasses
import json

import pytest

from mgjax.apps.serving.annotation_queue import append_answer
from mgjax.core.errors import ConfigError
from mgjax.lab.curation.review.decisions import FILE, UNSEEN, Decision, read_decisions, review
from mgjax.lab.curation.review.labels import CAMERA, LABELS, SHOTS
from tests.apps.serving.tiny_pages import row

ROWS = [row(0), row(1), row(2)]
KEPT = Decision('a', '0.mp4#0', 0.5, 3.5, 'ann', True, '', 0.5, 3.5)
DROPPED = dataclasses.replace(KEPT, id='b', clip='1.mp4#0', keep=False, reason='jitter')


def test_the_labels_are_the_22_of_the_paper():
  assert len(CAMERA) == 16 and len(SHOTS) == 6 and len({*LABELS}) == 22


def test_nothing_changes_where_nobody_changed_anything():
  found = review(ROWS, [KEPT], 'keep')
  assert found.rows == ROWS and found.reasons == ['', '', '']
  assert (found.waiting, found.trimmed, found.corrected) == (2, 0, 0)


def test_a_clip_is_dropped_trimmed_captioned_and_labelled_as_people_say():
  trimmed = dataclasses.replace(
    KEPT, id='c', clip='2.mp4#0', first=1.0, last=3.0, caption='A dog.', labels=('wide shot',)
  )
  found = review(ROWS, [KEPT, DROPPED, trimmed], 'wait')
  assert found.reasons == ['', 'person: jitter', ''] and found.waiting == 0
  changed = {'start': 1.0, 'end': 3.0, 'caption': 'A dog.', 'labels': ['wide shot']}
  assert found.rows[2] == ROWS[2] | changed
  assert (found.trimmed, found.corrected) == (1, 1)


@pytest.mark.parametrize(('undecided', 'reason'), [('keep', ''), ('wait', ''), ('drop', UNSEEN)])
def test_clips_that_nobody_saw_are_kept_or_dropped_as_asked(undecided, reason):
  found = review(ROWS, [KEPT], undecided)
  assert found.reasons == ['', reason, reason] and found.waiting == 2


def test_the_last_decision_of_several_people_counts():
  ben = dataclasses.replace(KEPT, id='d', person='ben', keep=False, reason='dull light')
  assert review(ROWS, [KEPT, ben], 'keep').reasons[0] == 'person: dull light'
  assert review(ROWS, [ben, KEPT], 'keep').reasons[0] == ''


def test_a_clip_that_is_cut_in_another_way_has_yet_to_be_seen():
  assert review([ROWS[1] | {'end': 3.0}], [DROPPED], 'keep').waiting == 1
  again = [ROWS[1] | {'end': 3.5000001}]  # by rounding alone
  assert review(again, [DROPPED], 'keep').reasons == ['person: jitter']


def test_decisions_survive_a_crash_in_the_middle_of_a_line(tmp_path):
  path = tmp_path / FILE
  assert read_decisions(path) == []
  append_answer(path, KEPT)
  whole = path.read_bytes()
  for cut in (0, 1, len(whole) // 2, len(whole) - 1):
    path.write_bytes(whole + whole[:cut].replace(b'"a"', b'"z"'))
    append_answer(path, DROPPED)
    found = read_decisions(path)
    assert (found[0], found[-1]) == (KEPT, DROPPED)
  append_answer(path, KEPT)
  assert read_decisions(path)[-1] == DROPPED  # the same id once


def test_a_damaged_line_is_left_out_with_a_warning(tmp_path, caplog):
  path = tmp_path / FILE
  append_answer(path, KEPT)
  with path.open('a') as file:
    for changes in ({'labels': ['nice']}, {'keep': False}, {'more': 1}, {'last': 99.0}):
      print(json.dumps(dataclasses.asdict(DROPPED) | {'reason': ''} | changes), file=file)
  append_answer(path, DROPPED)
  assert read_decisions(path) == [KEPT, DROPPED] and '4 damaged lines' in caplog.text


@pytest.mark.parametrize(
  'changes',
  [{'labels': ('x',)}, {'reason': 'y'}, {'first': 0.4}, {'last': 3.6}, {'first': 3.5}],
  ids=['label', 'reason', 'before', 'after', 'empty'],
)
def test_what_cannot_be_decided_is_refused(changes):
  with pytest.raises(ConfigError):
    dataclasses.replace(KEPT, **changes)
