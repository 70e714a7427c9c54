"""What is stuck ends with exit code 124 and says where; what is not is left alone."""

import dataclasses
import subprocess
import sys
import threading
import time

import pytest

from mgjax.core.errors import ConfigError
from mgjax.core.settings import annotations
from mgjax.training.monitoring.phases import Phases
from mgjax.training.monitoring.watchdog import PhaseLimits, watched
from tests import tiny

STUCK = """
import threading, time
from mgjax.training.monitoring.phases import Phases
from mgjax.training.monitoring.watchdog import PhaseLimits, watched

def other_thread():
  time.sleep(60)

threading.Thread(target=other_thread, daemon=True).start()
phases = Phases()
with watched(phases, PhaseLimits(save=0.3)), phases.during('save'):
  time.sleep(60)
"""


def ends(phases, limits, seconds=0.5):
  """The exit codes that a watchdog would have ended the process with, after some time."""
  codes = []
  with watched(phases, PhaseLimits(**limits), codes.append):
    deadline = time.monotonic() + seconds
    while not codes and time.monotonic() < deadline:
      time.sleep(0.01)
  return codes


def test_a_stuck_process_says_where_and_ends_with_124():
  found = subprocess.run(
    [sys.executable, '-c', STUCK], cwd=tiny.CHECKOUT, capture_output=True, text=True, timeout=50
  )
  assert found.returncode == 124
  assert 'the phase save has taken' in found.stderr and 'train.limits.save' in found.stderr
  # The stacks of the main thread and of the other one.
  assert 'line 12 in <module>' in found.stderr and 'in other_thread' in found.stderr


@pytest.mark.parametrize('phase', ['compile', 'step', 'data', 'evaluate', 'save', 'restore'])
def test_every_phase_has_a_limit_of_its_own(phase, capfd):
  phases = Phases()
  limit = 'step' if phase == 'data' else phase  # who waits for data is stuck in a step
  names = [field.name for field in dataclasses.fields(PhaseLimits)]
  others = {name: 0.01 for name in names if name not in (limit, 'stop')}
  with phases.during(phase):
    assert ends(phases, others, seconds=0.1) == []
    assert ends(phases, {limit: 0.02}, seconds=20) == [124]
  assert f'the phase {phase} has taken' in capfd.readouterr().err


def test_steps_that_go_on_never_add_up_to_a_hang():
  phases, codes = Phases(), []
  with watched(phases, PhaseLimits(step=1), codes.append), phases.during('step'):
    for _ in range(15):
      with phases.during('data'):
        time.sleep(0.1)
  assert codes == []


def test_what_compiles_first_may_take_both_limits(capfd):
  phases = Phases()
  with phases.during('evaluate', compiles=True):
    assert ends(phases, {'evaluate': 0.01, 'compile': 60}, seconds=0.1) == []
    assert ends(phases, {'evaluate': 0.01}, seconds=0.1) == []  # compiling has no limit
    assert ends(phases, {'evaluate': 0.01, 'compile': 0.01}, seconds=20) == [124]
  assert 'its limit with that of compile is 0.02 s' in capfd.readouterr().err


@pytest.mark.parametrize(('unsaved', 'code'), [(True, 124), (False, 0)])
def test_after_a_signal_a_run_has_so_long_to_end(unsaved, code, capfd):
  phases = Phases()
  phases.unsaved = unsaved
  assert ends(phases, {'stop': 0.01}, seconds=0.1) == []
  phases.stop()
  assert ends(phases, {'stop': 0.02}, seconds=20) == [code]
  said = capfd.readouterr().err
  assert 'a signal asked to stop' in said and ('nothing is unsaved' in said) == (code == 0)


def test_no_watchdog_outlives_its_run_and_none_is_there_without_a_limit():
  before = threading.active_count()
  with watched(Phases(), PhaseLimits(**dict.fromkeys(annotations(PhaseLimits), 0.0))):
    assert threading.active_count() == before
  began = time.monotonic()
  with pytest.raises(KeyError), watched(Phases(), PhaseLimits(step=9)):
    assert threading.active_count() == before + 1
    raise KeyError
  assert threading.active_count() == before
  assert time.monotonic() - began < 5


def test_limits_are_seconds():
  for wrong in (-1, float('nan'), float('inf'), 1e30):
    with pytest.raises(ConfigError, match='save = '):
      PhaseLimits(save=wrong)
