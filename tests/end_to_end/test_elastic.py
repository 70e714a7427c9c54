"""Hosts of a run are killed, frozen, slowed down and taken away; it ends in the same bits."""

import contextlib
import ctypes
import os
import random
import resource
import signal
import socket
import subprocess
import sys
import time

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mgjax.core.errors import CheckpointError, StorageError
from mgjax.parallel.mesh import make_mesh
from mgjax.training.checkpoints.manager import Checkpoints
from tests import tiny
from tests.end_to_end.test_kills import SHORT, beginning, learn

# A batch has 16 rows. docs/experiments/pages_restarts.md has the numbers of HOSTS=16 FAULTS=20.
HOSTS, FAULTS = int(os.environ.get('HOSTS', 4)), int(os.environ.get('FAULTS', 8))
KINDS = (
  'host killed',
  'process killed',
  'host frozen',
  'process stuck',
  'slow',
  'host leaves',
  'disk full',
  'network cut',
)
PATIENCE = 4
# A process ends as those of launch/ do.
LEARN = """
import sys
from launch import command_line
from tests.end_to_end.test_kills import learn
given, sys.argv[1:] = sys.argv[1:], []
command_line.run(lambda _: learn(*given))
"""


class Hosts:
  """Supervisors of one run, each as on a host of its own."""

  def __init__(self, folder):
    self.run, self.log, self.started = folder / 'run', folder / 'log', []
    counts = ','.join(str(count) for count in (16, 8, 4, 2, 1) if count <= HOSTS)
    self.command = [
      sys.executable,
      str(tiny.CHECKOUT / 'launch/recipes/supervise.py'),
      f'--hosts={counts}',
      f'--meet={folder}/hosts',
      f'--patience={PATIENCE}',
      '--pause=2',
      '--grace=60',
      sys.executable,
      '-c',
      LEARN,
      str(self.run),
      str(10**6),
      '0.02',
    ]
    self.environment = {**os.environ, **SHORT, 'JAX_NUM_CPU_DEVICES': '1'}
    self.run.mkdir()

  def fill(self):
    """Brings hosts until there are enough."""
    while len(self.there()) < HOSTS:
      with self.log.open('a') as file:
        options = {'cwd': tiny.CHECKOUT, 'env': self.environment, 'stdout': file, 'stderr': file}
        self.started.append(subprocess.Popen(self.command, **options))

  def there(self):
    return [host for host in self.started if host.poll() is None]

  def process_of(self, host):
    """The process of a host, None while it has none."""
    found = subprocess.run(['pgrep', '-P', str(host.pid)], capture_output=True, text=True)
    return int(found.stdout.split()[0]) if found.stdout else None

  def step(self):
    folder = self.run / 'checkpoints'
    names = os.listdir(folder) if folder.exists() else []
    return max((int(name) for name in names if name.isdigit()), default=0)

  def goes_on(self, count, steps=20):
    """Brings hosts where some are missing, until steps were saved of so many processes."""
    reached, deadline = None, time.monotonic() + 600
    while reached is None or self.step() < reached + steps:
      self.fill()
      assert time.monotonic() < deadline, self.log.read_text()[-5000:]
      if len([host for host in self.there() if self.process_of(host)]) != count:
        reached = None
      elif reached is None:
        reached = self.step()
      time.sleep(0.2)

  def harm(self, kind, chance):
    """Does something to a host; returns what ends it."""
    host = chance.choice([each for each in self.there() if self.process_of(each)])
    process = self.process_of(host)
    if kind == 'host killed':
      host.kill()
    elif kind == 'process killed':
      os.kill(process, signal.SIGKILL)
    elif kind == 'host leaves':
      host.terminate()
    elif kind == 'disk full':  # which all share
      for each in filter(None, map(self.process_of, self.there())):
        resource.prlimit(each, resource.RLIMIT_FSIZE, (0, 0))
    elif kind == 'network cut':
      cut(process)
    else:
      frozen = [process] if kind != 'host frozen' else [process, host.pid]
      for each in frozen:
        os.kill(each, signal.SIGSTOP)
      if kind == 'slow':
        time.sleep(2)
        os.kill(process, signal.SIGCONT)
      elif kind == 'host frozen':
        time.sleep(3 * PATIENCE)
        os.kill(host.pid, signal.SIGCONT)  # which ends its process, of a round that is over


def cut(process):
  """Ends the connections of a process to all others."""
  handle = os.pidfd_open(process)
  for number in map(int, os.listdir(f'/proc/{process}/fd')):
    ours = ctypes.CDLL(None).syscall(438, handle, number, 0)  # pidfd_getfd
    with contextlib.suppress(OSError), socket.socket(fileno=ours) as connection:
      connection.shutdown(socket.SHUT_RDWR)


@pytest.mark.slow
@pytest.mark.timeout(7200)
def test_faults_lose_no_step_and_double_none(tmp_path):
  hosts, chance = Hosts(tmp_path), random.Random(0)
  began = time.monotonic()
  try:
    hosts.goes_on(HOSTS)
    for number in range(FAULTS):
      kind, since, step = KINDS[number % len(KINDS)], time.monotonic(), hosts.step()
      hosts.harm(kind, chance)
      time.sleep(1)
      hosts.goes_on(HOSTS)
      print(f'{kind} at step {step}: {time.monotonic() - since:.0f} s', flush=True)
    for host in hosts.there():
      host.terminate()
    full = {CheckpointError.exit_code, StorageError.exit_code}  # of a run, until there is room
    assert {host.wait(timeout=120) for host in hosts.started} <= {0, -signal.SIGKILL} | full
  finally:
    for host in hosts.there():
      host.kill()
  reached = hosts.step()
  print(f'{FAULTS} faults, {reached} steps in {time.monotonic() - began:.0f} s', flush=True)
  alone = tmp_path / 'alone'
  alone.mkdir()
  learn(alone, reached, 0.0)
  states = []
  for folder in (hosts.run, alone):
    with Checkpoints(folder / 'checkpoints') as saved:
      states.append(saved.restore(beginning(make_mesh({'fsdp': -1}, 'fsdp')))[0])
  found, known = (jax.tree.map(np.asarray, state.params) for state in states)
  np.testing.assert_array_equal(found['x'], known['x'])  # chaotic: any other batch shows
  # Means are sums of all hosts' rows, in another order.
  means = [state.opt_state['mean'] for state in states]
  np.testing.assert_allclose(*means, rtol=16 * 64 * jnp.finfo(jnp.float32).eps)
