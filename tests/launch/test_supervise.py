"""The supervisor starts again what another start may mend, and nothing else."""

import os
import signal
import subprocess
import time

import pytest

from tests.tiny import CHECKOUT

SUPERVISE = ['bash', str(CHECKOUT / 'launch' / 'recipes' / 'supervise.sh')]
# Ends with the codes it is given, one after the other.
ENDING = """
count=$(($(cat "$0.count" 2>/dev/null || echo 0) + 1))
echo "$count" >"$0.count"
code=${!count}
if ((code > 255)); then kill -9 $$; fi
exit "$code"
"""


def supervised(folder, *codes, restarts=5):
  """The exit code, how often the command was started, and what was said."""
  command = folder / 'command'
  command.write_text(ENDING)
  found = subprocess.run(
    [*SUPERVISE, 'bash', str(command), *map(str, codes)],
    env={**os.environ, 'PAUSE': '0', 'RESTARTS': str(restarts)},
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
  assert 'exit code 124; starting again' in said and 'exit code 137' in said


def test_it_gives_up_after_as_many_restarts_as_it_was_given(tmp_path):
  assert supervised(tmp_path, *[1] * 9, restarts=3)[:2] == (1, 4)


@pytest.mark.parametrize(('trap', 'code'), [('exit 0', 0), ('exit 7', 7)])
def test_a_signal_goes_to_the_command_which_is_not_started_again(tmp_path, trap, code):
  script = f'trap "echo heard >>{tmp_path}/heard; {trap}" TERM; touch {tmp_path}/ready; '
  script += 'while true; do sleep 0.05; done'
  with subprocess.Popen([*SUPERVISE, 'bash', '-c', script]) as process:
    deadline = time.monotonic() + 60
    while not (tmp_path / 'ready').exists() and time.monotonic() < deadline:
      time.sleep(0.02)
    process.send_signal(signal.SIGTERM)
    assert process.wait(timeout=60) == code
  assert (tmp_path / 'heard').read_text() == 'heard\n'


def test_without_a_command_it_says_what_to_give():
  found = subprocess.run(SUPERVISE, capture_output=True, text=True, timeout=60)
  assert found.returncode == 2 and 'give the command' in found.stderr
