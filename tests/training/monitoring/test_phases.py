"""Every moment belongs to one phase."""

import time

import pytest

from mgjax.training.monitoring.phases import Phases, since_start


class Clock:
  def __init__(self):
    self.now = 100.0

  def __call__(self):
    return self.now


def test_every_second_is_in_one_phase():
  clock = Clock()
  phases = Phases(spent=7.0, clock=clock)
  clock.now += 1
  with phases.during('step'):
    clock.now += 2
    with phases.during('data'):
      clock.now += 4
    clock.now += 8
    assert phases.working() == 14
    with pytest.raises(KeyError), phases.during('save'):
      clock.now += 16
      raise KeyError
  clock.now += 32
  seconds = phases.seconds()
  assert {name: value for name, value in seconds.items() if value} == {
    'init': 40,
    'step': 10,
    'data': 4,
    'save': 16,
  }
  assert sum(seconds.values()) == 7 + clock.now - 100


def test_a_phase_begins_anew_after_another_one():
  clock = Clock()
  phases = Phases(clock=clock)
  with phases.during('step'):
    clock.now += 5
    with phases.during('evaluate', compiles=True):
      assert phases.now.compiles
      clock.now += 5
    assert (phases.now.name, phases.now.since, phases.now.compiles) == ('step', 110, False)


def test_a_process_knows_how_old_it_is():
  first = since_start()
  time.sleep(0.05)
  assert 0 < first < since_start() < 24 * 3600
