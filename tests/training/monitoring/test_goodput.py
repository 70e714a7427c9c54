"""Where the time of a run went: over kills, cut lines and steps done again it still adds up."""

import json

import pytest

from mgjax.training.monitoring.goodput import GOODPUT_FILE, Ledger, add_up, read_goodput
from mgjax.training.monitoring.phases import PHASES, Phases


def line(attempt, began, at, step, seconds, begin=None, **more):
  found = {'attempt': attempt, 'began': began, 'at': at, 'step': step, 'seconds': seconds}
  return found | ({} if begin is None else {'from': begin}) | more


def test_what_was_done_again_is_lost_and_what_no_line_tells_of_is_idle():
  found = add_up(
    [
      line('a', 0, 1, None, {'init': 1}),
      line('a', 0, 5, 0, {'init': 2, 'compile': 3}, 0),
      line('a', 0, 25, 10, {'init': 2, 'compile': 3, 'step': 18, 'save': 2}, 0),
      line('a', 0, 35, 20, {'init': 2, 'compile': 3, 'step': 28, 'save': 2}, 0),
      line(
        'b', 40, 44, 15, {'restore': 4}, 15
      ),  # five of the last ten steps, which took ten seconds
      line('b', 40, 64, 35, {'restore': 4, 'step': 20}, 15, finished=True),
      line('c', 999, 1000, 35, {'init': 1}, 35, finished=True),  # found nothing to do
    ]
  )
  assert (found.attempts, found.again) == (2, 5)
  assert {name: value for name, value in found.seconds.items() if value} == {
    'init': 2,
    'compile': 3,
    'step': 28 + 20 - 5,
    'save': 2,
    'restore': 4,
    'lost': 5,
    'idle': 5,
  }
  assert found.total == 64 and found.share == 43 / 64
  assert sum(found.shares().values()) == pytest.approx(1)


def test_falling_back_behind_an_earlier_attempt_loses_steps_of_both():
  found = add_up(
    [
      line('a', 0, 0, 0, {}, 0),
      line('a', 0, 10, 10, {'step': 10}, 0),
      line('b', 10, 10, 8, {}, 8),
      line('b', 10, 20, 18, {'step': 20}, 8),
      line('c', 20, 20, 4, {}, 4),
      line('c', 20, 30, 14, {'step': 10}, 4),
    ]
  )
  # Two of the first attempt's by the second; then four more of it and all ten of the second.
  assert found.again == 2 + 4 + 10
  assert found.seconds['lost'] == pytest.approx(2 + 4 + 20)
  assert found.seconds['step'] == pytest.approx(40 - 26)


def test_an_attempt_that_died_before_its_first_step_counts(tmp_path):
  found = add_up([line('a', 0, 2, None, {'init': 2}), line('b', 10, 11, 0, {'init': 1}, 0)])
  assert (found.attempts, found.seconds['idle'], found.seconds['init']) == (2, 8, 3)


@pytest.mark.parametrize('torn', [b'{"attempt": "x", "be', b'\xff\x00', b'[1]\n{}\n'])
def test_a_line_that_a_kill_cut_short_costs_itself_alone(tmp_path, torn):
  for step in (0, 4):
    ledger = Ledger(tmp_path, Phases(spent=1.0))
    ledger.note()
    ledger.begin(step)
    ledger.note(step + 4)
    with (tmp_path / 'goodput.jsonl').open('ab') as file:
      file.write(torn)
  found = read_goodput(tmp_path)
  assert found.attempts == 2 and found.seconds['init'] == pytest.approx(2, abs=0.5)
  assert found.seconds.keys() == {*PHASES, 'lost', 'idle'}


def test_a_ledger_only_grows_and_knows_what_was_before(tmp_path):
  path = tmp_path / 'goodput.jsonl'
  first = Ledger(tmp_path, Phases(spent=3.0))
  assert not path.exists() and first.now() is None
  first.begin(0)
  first.note(1, always=False)  # the last line is not a second old
  before = path.read_bytes()
  assert before.count(b'\n') == 1
  first.note(6)
  second = Ledger(tmp_path, Phases(spent=2.0))
  second.begin(4)
  assert path.read_bytes().startswith(before)
  assert second.now().attempts == 2 and second.now().again == 2
  assert second.now().seconds['init'] == pytest.approx(5, abs=0.5)
  second.note(8, finished=True)
  assert json.loads(path.read_text().splitlines()[-1])['finished']
  found, now = read_goodput(tmp_path), second.now()
  assert found.total == pytest.approx(now.total, abs=0.5)
  assert read_goodput(tmp_path / 'nowhere') is None


@pytest.mark.parametrize(
  'damage',
  [
    b'{',
    b'\xff',
    b'[' * 100_000,
    b'null',
    b'[]',
    b'7',
    b'{}',
    {'attempt': [1]},
    {'attempt': None},
    {'began': 'x'},
    {'began': None},
    {'at': float('nan')},
    {'at': 1e300},
    {'seconds': []},
    {'seconds': {'step': 'x'}},
    {'seconds': {'step': float('inf')}},
    {'seconds': None},
    {'step': 'x'},
    {'step': 10**30},
    {'step': [1]},
    {'from': 'x'},
    {'from': {}},
  ],
)
def test_a_damaged_line_never_stops_an_account_and_is_heard_of(tmp_path, damage, caplog):
  whole = [line('a', 0.0, 10.0, 5, {'step': 4.0}, begin=0), line('a', 0.0, 20.0, 9, {'step': 9.0})]
  if isinstance(damage, dict):
    damage = json.dumps(whole[1] | damage).encode()
  texts = [json.dumps(each).encode() for each in whole]
  (tmp_path / GOODPUT_FILE).write_bytes(b'\n'.join([texts[0], damage, texts[1], b'']))
  assert read_goodput(tmp_path) == add_up(whole)
  assert "goodput.jsonl' has 1 damaged lines (line 2)" in caplog.text
  ledger = Ledger(tmp_path, Phases())
  ledger.begin(9)
  assert ledger.now().attempts == 2
