"""The supervisor starts again what another start may mend, on the hosts that are there."""

import contextlib
import json
import signal
import subprocess
import sys
import time

import pytest

from tests.tiny import CHECKOUT
from tests.waiting import wait_for

SUPERVISE = [sys.executable, str(CHECKOUT / 'launch' / 'recipes' / 'supervise.py')]
# Ends with the codes it is given, one after the other.
ENDING = """
count=$(($(cat "$0.count" 2>/dev/null || echo 0) + 1))
echo "$count" >"$0.count"
code=${!count}
if ((code > 255)); then kill -9 $$; fi
exit "$code"
"""
# A run in a folder, as training is one, until the folder has a file `enough`: the first process
# takes a step while all are there, and saves every fifth and where one is asked to stop; where one
# is gone all fail.
TRAINING = """
import json, os, pathlib, signal, sys, time
folder = pathlib.Path(sys.argv[1])
count, index = int(os.environ['JAX_NUM_PROCESSES']), int(os.environ['JAX_PROCESS_ID'])
here = folder / os.environ['JAX_COORDINATOR_ADDRESS']
here.mkdir(exist_ok=True)
signal.signal(signal.SIGTERM, lambda *_: (here / 'stop').touch())
(here / f'{index}').write_text(str(os.getpid()))
while len([*here.glob('[0-9]*')]) < count:
  time.sleep(0.01)
saved = folder / 'saved'
done = json.loads(saved.read_text()) if saved.exists() else []

def save():
  new = folder / 'new'
  new.write_text(json.dumps(done))
  new.replace(saved)

def alive():
  for each in here.glob('[0-9]*'):
    state = pathlib.Path(f'/proc/{each.read_text()}/stat')
    if not state.exists() or state.read_text().rpartition(')')[2].split()[0] == 'Z':
      return False
  return True

while not (here / 'stop').exists() and not (folder / 'enough').exists():
  if not alive():
    sys.exit(1)
  if index == 0:
    with open(folder / 'taken', 'a') as taken:
      taken.write(f'{len(done)} ')
    done.append([len(done), count])
    if len(done) % 5 == 0:
      save()
  time.sleep(0.02)
if index == 0:
  save()
"""


def supervised(folder, *codes, restarts=5):
  """The exit code, how often the command was started, and what was said."""
  command = folder / 'command'
  command.write_text(ENDING)
  options = ['--pause=0', f'--restarts={restarts}']
  found = subprocess.run(
    [*SUPERVISE, *options, 'bash', str(command), *map(str, codes)],
    capture_output=True,
    text=True,
    timeout=60,
  )
  return found.returncode, int((folder / 'command.count').read_text()), found.stderr


@pytest.mark.parametrize('code', [0, 2, 3, 4, 5])
def test_what_another_start_would_not_mend_is_not_started_again(tmp_path, code):
  assert supervised(tmp_path, code)[:2] == (code, 1)


def test_crashes_kills_and_watchdogs_are_started_again(tmp_path):
  code, starts, said = supervised(tmp_path, 1, 124, 134, 999, 0)
  assert (code, starts) == (0, 5)
  assert 'exit code 124' in said and 'exit code 137' in said


def test_it_gives_up_after_as_many_restarts_as_it_was_given(tmp_path):
  assert supervised(tmp_path, *[1] * 9, restarts=3)[:2] == (1, 4)


@pytest.mark.parametrize(('trap', 'code'), [('exit 0', 0), ('exit 7', 7)])
def test_a_signal_goes_to_the_command_which_is_not_started_again(tmp_path, trap, code):
  script = f'trap "echo heard >>{tmp_path}/heard; {trap}" TERM; touch {tmp_path}/ready; '
  script += 'while true; do sleep 0.05; done'
  with subprocess.Popen([*SUPERVISE, 'bash', '-c', script]) as process:
    wait_for((tmp_path / 'ready').exists)
    process.send_signal(signal.SIGTERM)
    assert process.wait(timeout=60) == code
  assert (tmp_path / 'heard').read_text() == 'heard\n'


@pytest.mark.parametrize(
  ('given', 'said'),
  [
    ([], 'give the command'),
    (['--hosts=2', 'true'], 'give --meet='),
    (['--hosts=0', 'true'], "invalid numbers value: '0'"),
  ],
)
def test_without_what_it_needs_it_says_what_to_give(given, said):
  found = subprocess.run([*SUPERVISE, *given], capture_output=True, text=True, timeout=60)
  assert found.returncode == 2 and said in found.stderr


class Cluster:
  """Hosts of a run on this machine: a supervisor each."""

  def __init__(self, folder, hosts):
    self.folder, self.started = folder, []
    (folder / 'training.py').write_text(TRAINING)
    self.command = [
      *SUPERVISE,
      f'--hosts={hosts}',
      f'--meet={folder}/hosts',
      '--patience=2',
      '--pause=0.5',
      sys.executable,
      str(folder / 'training.py'),
      str(folder),
    ]

  def add(self, count):
    new = [subprocess.Popen(self.command, stderr=subprocess.PIPE) for _ in range(count)]
    self.started += new
    return new

  def steps(self):
    """(step, on how many hosts), in order, of what is saved."""
    with contextlib.suppress(FileNotFoundError):
      return [tuple(each) for each in json.loads((self.folder / 'saved').read_text())]
    return []

  def end(self):
    (self.folder / 'enough').touch()
    codes = [process.wait(timeout=60) for process in self.started]
    assert [step for step, _ in self.steps()] == list(range(len(self.steps())))  # none lost
    return sorted(codes)

  def on(self, count):
    """Waits until steps were saved of so many hosts."""
    wait_for(lambda: self.steps() and self.steps()[-1][1] == count)


@pytest.fixture
def cluster(tmp_path):
  made = []

  def make(*args):
    made.append(Cluster(tmp_path, *args))
    return made[-1]

  yield make
  for process in made[0].started:
    process.kill()
    process.communicate()


def test_hosts_that_are_killed_are_left_out_and_new_ones_taken_in(cluster):
  run = cluster('3,2,1')
  first, *_ = run.add(3)
  run.on(3)
  first.kill()
  run.on(2)
  run.add(1)
  run.on(3)
  assert run.end() == [-9, 0, 0, 0]


def test_a_host_that_is_frozen_is_left_out_and_comes_back(cluster):
  run = cluster('2,1')
  one, _ = run.add(2)
  run.on(2)
  one.send_signal(signal.SIGSTOP)
  run.on(1)
  one.send_signal(signal.SIGCONT)
  run.on(2)
  assert run.end() == [0, 0]


def test_a_host_that_is_asked_to_leave_loses_no_step(cluster):
  run = cluster('3,2,1')
  one, *_ = run.add(3)
  run.on(3)
  one.terminate()
  run.on(2)
  assert run.end() == [0, 0, 0]
  taken = (run.folder / 'taken').read_text().split()
  assert taken == [str(step) for step in range(len(taken))]  # none for a second time


def test_with_fewer_hosts_than_it_can_go_on_with_it_waits(cluster):
  run = cluster('2')
  one, _ = run.add(2)
  run.on(2)
  one.kill()
  one.wait()
  time.sleep(4)  # longer than its patience
  before = len(run.steps())
  time.sleep(0.5)
  assert len(run.steps()) == before
  run.add(1)
  wait_for(lambda: len(run.steps()) > before)
  assert run.end() == [-9, 0, 0]


def test_a_command_that_does_not_end_when_asked_is_killed_after_the_grace(tmp_path):
  script = f'trap "" TERM; touch {tmp_path}/ready; while true; do sleep 0.05; done'
  with subprocess.Popen([*SUPERVISE, '--grace=1', 'bash', '-c', script]) as process:
    wait_for((tmp_path / 'ready').exists)
    process.terminate()
    assert process.wait(timeout=60) == 128 + signal.SIGKILL
