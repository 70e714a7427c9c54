"""A run of the tests ends on the first SIGTERM or Ctrl-C, also while a test trains or compiles."""

import os
import signal
import subprocess
import sys

import pytest

from tests import tiny
from tests.waiting import wait_for

TESTS = """
import hashlib, pathlib
from mgjax.training.monitoring import signals
from tests.training import test_loop

def test_that_trains(tmp_path):
  def losses(done):
    pathlib.Path('started').touch()
    return 1.0

  test_loop.run(tmp_path, test_loop.counting(losses), steps=10**9)

def test_that_compiles():
  # Like a compilation, this does not return to Python for a minute.
  with signals.stop_signal():
    pathlib.Path('started').touch()
    hashlib.pbkdf2_hmac('sha256', b'', b'', 10**9)

def test_the_next():
  pathlib.Path('continued').touch()
"""


@pytest.mark.parametrize(
  ('name', 'number', 'options'),
  [
    ('trains', signal.SIGTERM, ['-n0']),
    ('compiles', signal.SIGINT, ['-n1']),
  ],
)
def test_a_run_of_the_tests_ends(tmp_path, name, number, options):
  (tmp_path / 'test_slow.py').write_text(TESTS)
  words = [sys.executable, '-m', 'pytest', '-p', 'tests.conftest', '-q', *options]
  chosen = ['test_slow.py', '-k', f'{name} or next']
  environment = {**os.environ, 'PYTHONPATH': str(tiny.CHECKOUT)}
  for variable in [each for each in environment if each.startswith('PYTEST_')]:
    del environment[variable]
  with subprocess.Popen(
    [*words, *chosen], cwd=tmp_path, env=environment, text=True, stdout=subprocess.PIPE
  ) as process:
    try:
      wait_for((tmp_path / 'started').exists)
      process.send_signal(number)
      said = process.communicate(timeout=60)[0]  # 6 where nothing else runs
    finally:
      process.kill()
  # 2 in order; the other one if that takes longer than they give it.
  assert process.returncode in (2, 128 + number), said
  assert not (tmp_path / 'continued').exists(), said
