"""`mgjax doctor` as it is typed: a line for each thing, and the exit code that they make."""

import subprocess
import sys

import pytest

from launch import command_line
from tests import binaries
from tests.tiny import CHECKOUT


def test_every_thing_has_a_line_and_the_exit_code_counts_what_is_wrong(tmp_path):
  done = binaries.run('doctor', f'--workdir={tmp_path}/runs')
  *lines, last = done.stdout.splitlines()
  states = [line.split()[0] for line in lines]
  assert set(states) <= {'right', 'optional', 'WRONG'}
  assert done.returncode == ('WRONG' in states)
  assert last.startswith('All that is needed') == (done.returncode == 0)
  named = {line.split()[1] for line in lines}
  assert named >= {'Python', 'packages', 'devices', 'memory', 'disk', 'temporary'}
  assert named >= {'H.264', 'AAC'}


def test_what_is_wrong_makes_the_exit_code(tmp_path, monkeypatch):
  monkeypatch.setenv('JAX_PLATFORMS', 'nonesuch')
  done = subprocess.run(
    [sys.executable, '-m', 'launch.doctor', f'--workdir={tmp_path}'],
    cwd=CHECKOUT, capture_output=True, text=True,
  )  # fmt: skip
  assert done.returncode == 1, done.stderr
  assert "JAX_PLATFORMS is 'nonesuch'" in done.stdout
  assert done.stdout.endswith('wrong; see above what to do.\n')


def mgjax(*words):
  code = (
    'import sys; sys.argv[0] = "/bin/mgjax"; from launch.command_line import console; console()'
  )
  return subprocess.run(
    [sys.executable, '-c', code, *words], cwd=CHECKOUT, capture_output=True, text=True
  )


@pytest.mark.parametrize('words', [(), ('--help',)], ids=str)
def test_mgjax_alone_lists_its_commands(words):
  done = mgjax(*words)
  assert done.returncode == 0, done.stderr
  listed = [line.split()[0] for line in done.stdout.splitlines()[1:]]
  assert listed == command_line.binaries()


def test_mgjax_with_a_command_is_that_command():
  done = mgjax('doctor', '--help')
  assert done.returncode == 0, done.stderr
  assert '--workdir' in done.stdout
  wrong = mgjax('train', '--workdri=x')
  assert (wrong.returncode, wrong.stderr[:13]) == (2, 'mgjax-train: ')


def test_a_command_that_is_not_there_gets_a_hint():
  done = mgjax('docter')
  assert done.returncode == 2
  assert done.stderr == 'mgjax: there is no command docter; did you mean doctor?\n'
