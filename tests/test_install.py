"""requirements/install.sh in small checkouts: one environment, one checkout, one at a time."""

import importlib.metadata
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import zipfile

import pytest

from tests.waiting import wait_for

CHECKOUT = pathlib.Path(__file__).parent.parent
# Where there is a file `hold`, an installation waits until it is gone, in the middle of pip.
SETUP = """
import os, time
from setuptools import setup
open('reached', 'w').close()
while os.path.exists('hold'):
  time.sleep(0.05)
setup(name='mgjax', version='1', packages=[])
"""


@pytest.fixture
def place(tmp_path):
  """A folder with checkouts `first` and `second` and a wheel of setuptools, all that they need."""
  found = importlib.metadata.distribution('setuptools')
  with zipfile.ZipFile(tmp_path / f'setuptools-{found.version}-py3-none-any.whl', 'w') as wheel:
    for path in found.files:
      if path.suffix != '.pyc' and path.locate().is_file():
        wheel.write(path.locate(), path.as_posix())
  for name in ('first', 'second'):
    (tmp_path / name / 'requirements').mkdir(parents=True)
    shutil.copy(CHECKOUT / 'requirements/install.sh', tmp_path / name / 'requirements')
    shutil.copy(CHECKOUT / 'pyproject.toml', tmp_path / name)
    (tmp_path / name / 'requirements/base.txt').write_text(f'setuptools=={found.version}\n')
    (tmp_path / name / 'setup.py').write_text(SETUP)
  return tmp_path


def start(place, name):
  """Starts an installation from a checkout into the environment that all share."""
  own = {'VENV': str(place / 'venv'), 'PYTHON': sys.executable}
  offline = {'PIP_NO_INDEX': '1', 'PIP_FIND_LINKS': str(place), 'PIP_CONFIG_FILE': os.devnull}
  return subprocess.Popen(
    ['bash', place / name / 'requirements/install.sh', 'base'],
    env={**os.environ, **own, **offline},
    stdout=subprocess.PIPE,
    stderr=subprocess.STDOUT,
    text=True,
    start_new_session=True,  # so that a kill reaches pip too
  )


def end(process):
  """Waits for an installation; its exit status and what it said."""
  said, _ = process.communicate(timeout=300)
  return process.returncode, said


def test_an_environment_belongs_to_one_checkout_until_that_is_gone(place):
  assert end(start(place, 'first'))[0] == 0
  assert end(start(place, 'first')) == (0, '')

  code, said = end(start(place, 'second'))
  assert code == 1
  assert f'there  {place}/first' in said and f'here   {place}/second' in said
  assert f'make ... VENV=folder, or give this one up first: rm -rf {place}/venv' in said
  assert end(start(place, 'first')) == (0, '')

  (place / 'first').rename(place / 'moved')
  code, said = end(start(place, 'moved'))
  assert code == 0 and 'Making' not in said
  (found,) = (place / 'venv').glob('lib/*/site-packages/mgjax-1.dist-info/direct_url.json')
  assert f'{place}/moved' in found.read_text()


def test_a_second_installation_waits_and_one_that_was_killed_is_begun_again(place):
  (place / 'first/hold').touch()
  first = start(place, 'first')
  wait_for((place / 'first/reached').exists, seconds=300)
  (place / 'venv/planted').touch()
  second = start(place, 'first')
  assert 'goes on; waiting for it' in second.stdout.readline()
  (place / 'first/hold').unlink()
  assert end(first)[0] == 0
  assert end(second) == (0, '')  # nothing was left to do
  assert (place / 'venv/planted').exists()

  (place / 'first/reached').unlink()
  (place / 'first/hold').touch()
  (place / 'first/setup.py').write_text(SETUP.replace("'1'", "'1.0'"))
  killed = start(place, 'first')
  wait_for((place / 'first/reached').exists, seconds=300)
  os.killpg(killed.pid, signal.SIGKILL)
  end(killed)
  (place / 'first/hold').unlink()
  assert 'another checkout' in end(start(place, 'second'))[1]
  code, said = end(start(place, 'first'))
  assert code == 0 and 'did not finish: starting afresh' in said
  assert not (place / 'venv/planted').exists()
  assert end(start(place, 'first')) == (0, '')


def test_a_folder_of_something_else_is_left_alone(place):
  (place / 'venv').mkdir()
  (place / 'venv/letters').touch()
  code, said = end(start(place, 'first'))
  assert code == 1 and 'exists and is no virtual environment' in said
  assert [path.name for path in (place / 'venv').iterdir()] == ['letters']
