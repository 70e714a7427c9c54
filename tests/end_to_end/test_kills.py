"""Runs that are killed at any moment go on from the newest whole step, and end bit by bit alike."""

import contextlib
import os
import pathlib
import random
import shutil
import signal
import socket
import subprocess
import sys
import time

import grain
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mgjax.checkpoints.manager import Checkpoints
from mgjax.data.loader import StepIterator
from mgjax.parallel import distributed
from mgjax.parallel.mesh import make_mesh
from mgjax.runtime.goodput import read_goodput, read_lines
from mgjax.runtime.session import run_session
from mgjax.runtime.watchdog import Limits
from mgjax.training.run import Hooks, run_loop
from mgjax.training.settings import RunSettings
from mgjax.training.state import State
from tests import tiny

LEARN = 'from tests.end_to_end.test_kills import learn as f; import sys; f(*sys.argv[1:])'
HEARTBEAT = 10  # seconds; JAX takes no fewer
# Of two processes the first one alone would find programs in the cache; see test_processes.py.
SHORT = {'JAX_ENABLE_COMPILATION_CACHE': 'false', 'JAX_DISABLE_MOST_OPTIMIZATIONS': 'true'}
KILLED = -signal.SIGKILL


class Numbers:
  """Rows of a batch that tell which step and which process they are for."""

  def __init__(self, process, processes):
    self.rows = np.arange(8).reshape(processes, -1)[process]

  def __len__(self):
    return 10**6

  def __getitem__(self, step):
    return {'x': np.sin(step + self.rows[:, None] / 8).astype(np.float32)}


def beginning(mesh):
  def place(value, *axes):
    sharding = jax.NamedSharding(mesh, jax.P(*axes))
    return jax.make_array_from_callback(value.shape, sharding, lambda at: np.asarray(value[at]))

  params = {'x': place(np.ones((8, 64), np.float32), 'fsdp')}
  return State(place(np.int32(0)), params, {'mean': place(np.zeros((), np.float32))}, {})


@jax.jit
def learn_step(state, batch):
  """Chaotic, so that a wrong batch, draw or bit at any step is seen at the end."""
  noise = jax.random.uniform(jax.random.fold_in(jax.random.key(0), state.step), (8, 64))
  x = state.params['x']
  x = 3.9 * jnp.mod(x + 0.1 * noise + batch['x'], 1.0) * (1 - jnp.mod(x + 0.1 * noise, 1.0))
  mean = 0.9 * state.opt_state['mean'] + jnp.mean(x)
  after = state.replace(step=state.step + 1, params={'x': x}, opt_state={'mean': mean})
  return after, {'loss': mean}


def learn(workdir, steps, pause, stop_at='', stuck_at='', limit=0):
  """What a process does: steps of at least `pause` seconds, every second one saved.

  With `stuck_at` the last process is stuck in that step, for which `limit` seconds are enough.
  """
  distributed.initialize(HEARTBEAT)
  workdir, mesh = pathlib.Path(workdir), make_mesh({'fsdp': -1}, 'fsdp')

  def step(state, batch):
    time.sleep(float(pause))
    if stuck_at and last and int(state.step) == int(stuck_at):
      time.sleep(600)
    return learn_step(state, batch)

  state, last = beginning(mesh), jax.process_index() == jax.process_count() - 1
  limits = Limits(step=float(limit), compile=60)
  rows = grain.MapDataset.source(Numbers(jax.process_index(), jax.process_count()))
  (workdir / f'ready{jax.process_index()}').touch()
  with run_session(workdir, limits) as session, Checkpoints(workdir / 'checkpoints') as saved:
    with session.phases.during('restore'):
      state = (saved.restore(state) or (state,))[0]
    run_loop(
      state, step, StepIterator(rows, int(state.step), threads=0),
      Hooks(lambda batch: batch, lambda params: {}, None, lambda state: {}),
      RunSettings(steps=int(steps), log_every=1, save_every=2),
      mesh=mesh, workdir=workdir, checkpoints=saved, session=session,
      stop_at=int(stop_at) if stop_at else None,
    )  # fmt: skip


@contextlib.contextmanager
def running(workdir, command, processes=1, **variables):
  """Processes of a run, and their log; none outlives the block."""
  with socket.socket() as free:
    free.bind(('127.0.0.1', 0))
    address = f'127.0.0.1:{free.getsockname()[1]}'
  if processes > 1:
    variables |= {'JAX_COORDINATOR_ADDRESS': address, 'JAX_NUM_PROCESSES': str(processes)}
  workdir.mkdir(parents=True, exist_ok=True)
  for ready in workdir.glob('ready*'):
    ready.unlink()
  started, log = [], workdir.with_name('log')
  try:
    with log.open('w') as file:
      for index in range(processes):
        own = {'JAX_PROCESS_ID': str(index)} if processes > 1 else {}
        environment = {**os.environ, **variables, **own}
        options = {'cwd': tiny.CHECKOUT, 'env': environment, 'stdout': file, 'stderr': file}
        started.append(subprocess.Popen(command, **options))
    yield started, log
  finally:
    for process in started:
      with contextlib.suppress(ProcessLookupError):
        process.kill()
      process.wait()


def learning(workdir, steps=12, pause=0.0, more=(), processes=1, **variables):
  command = [sys.executable, '-c', LEARN, *map(str, (workdir, steps, pause, *more))]
  if processes == 1:
    return running(workdir, command, **variables)
  devices = str(8 // processes)
  return running(workdir, command, processes, JAX_NUM_CPU_DEVICES=devices, **SHORT)


class Run:
  """A run that is killed again and again; holds every attempt to where it must begin."""

  def __init__(self, workdir):
    self.workdir = workdir
    self.resumed = self.kills = self.ended = 0

  def newest(self):
    with Checkpoints(self.workdir / 'checkpoints') as saved:
      return max(saved.steps(), default=0)

  def survive(self, start, kill):
    """One attempt; `kill(processes)` may kill some of it. Returns whether it came to its end."""
    newest = self.newest()
    before = {line['attempt'] for line in self.lines()}
    with start() as (processes, log):
      kill(processes)
      said = log.read_text()
    codes = [process.returncode for process in processes]
    assert any(codes) or set(codes) == {0}
    assert KILLED in codes or codes == [0] * len(codes), said
    begun = [line for line in self.lines() if line['attempt'] not in before and 'from' in line]
    # Everything on disk is whole: it goes on from the newest, and never finds anything damaged.
    assert all(line['from'] == newest for line in begun), (newest, begun)
    assert not list(self.workdir.glob('checkpoints/*.corrupt*')), said
    self.resumed += bool(begun)
    self.kills += KILLED in codes
    self.ended += not any(codes)
    return not any(codes)

  def lines(self):
    return read_lines(self.workdir / 'goodput.jsonl')

  def same(self, expected, state):
    """Whether the run ended as an undisturbed one: every loss, and every bit of the state."""
    with Checkpoints(self.workdir / 'checkpoints') as saved:
      found, _ = saved.restore(jax.eval_shape(lambda: state))
    assert tiny.losses(self.workdir) == tiny.losses(expected)
    return tiny.same_state(found, state)


def final_state(workdir):
  with Checkpoints(workdir / 'checkpoints') as saved:
    return saved.restore(beginning(make_mesh({'fsdp': -1}, 'fsdp')))[0]


def wait_until(condition, processes, seconds=120):
  deadline = time.monotonic() + seconds
  while not condition() and time.monotonic() < deadline:
    if any(process.poll() is not None for process in processes):
      return
    time.sleep(0.02)


def finish(processes):
  assert [process.wait(timeout=200) for process in processes] == [0] * len(processes)


def kill_at(step, workdir, index=0):
  """Kills a process once a step was reported, and waits for the others to end by themselves."""

  def kill(processes):
    path = workdir / 'metrics.jsonl'
    wait_until(lambda: path.exists() and f'"step": {step},' in path.read_text(), processes)
    processes[index].kill()
    for process in processes:
      process.wait(timeout=3 * HEARTBEAT)

  return kill


def test_a_killed_run_goes_on_and_ends_bit_by_bit_alike(tmp_path):
  run, alone = Run(tmp_path / 'run'), tmp_path / 'alone'
  alone.mkdir()
  learn(alone, 12, 0.0)
  assert not run.survive(lambda: learning(run.workdir, pause=0.1), kill_at(7, run.workdir))
  assert run.survive(lambda: learning(run.workdir), finish)
  assert run.same(alone, final_state(alone))
  account = read_goodput(run.workdir)
  assert account.attempts == 2 and account.seconds['idle'] > 0


@pytest.mark.slow
def test_two_processes_of_which_one_is_killed_end_and_go_on(tmp_path):
  run = Run(tmp_path / 'run')
  start = lambda pause=0.0: learning(run.workdir, pause=pause, processes=2)  # noqa: E731
  assert not run.survive(lambda: start(0.05), kill_at(5, run.workdir))
  assert run.newest() >= 2
  assert run.survive(start, finish)
  assert list(tiny.losses(run.workdir)) == list(range(1, 13))


def kill_after(seconds, index=0, grace=0.0):
  """Kills a process after some time, if it is still there, and the others if they do not end."""

  def kill(processes):
    ended = time.monotonic() + seconds
    while time.monotonic() < ended and None in [process.poll() for process in processes]:
      time.sleep(0.01)
    if processes[index].poll() is None:
      processes[index].kill()
    elif len(processes) == 1 or not processes[index].returncode:
      return finish(processes)
    deadline = time.monotonic() + grace
    while None in [process.poll() for process in processes] and time.monotonic() < deadline:
      time.sleep(0.05)
    LASTED.append(grace - (deadline - time.monotonic()))
    for process in processes:
      process.kill()
      process.wait()

  return kill


LASTED = []  # seconds that others lived on after one was killed


def kill_often(run, start, least, seconds, expected, state, processes=1):
  """Kills at random moments of a life of `seconds`, again and again; compares whatever ends."""
  chance = random.Random(0)
  while run.kills < least:
    moment, index = chance.uniform(0.3, 1.1) * seconds, chance.randrange(processes)
    grace = 3.0 * HEARTBEAT if processes > 1 else 0.0
    if run.survive(start, kill_after(moment, index, grace)):
      assert run.same(expected, state)
      shutil.rmtree(run.workdir)
    print(f'{run.kills} kills, {run.resumed} begun, {run.ended} ended', flush=True)
  while not run.survive(start, finish):
    pass
  assert run.same(expected, state)


def undisturbed(workdir, start):
  """Runs to the end twice; returns how long that takes once programs are in the cache."""
  for again in range(2):
    shutil.rmtree(workdir, ignore_errors=True)
    began = time.monotonic()
    assert Run(workdir).survive(start, finish), again
  seconds = time.monotonic() - began
  print(f'an undisturbed run takes {seconds:.1f} s', flush=True)
  return seconds


@pytest.mark.slow
@pytest.mark.timeout(7200)
@pytest.mark.parametrize(('processes', 'least'), [(1, 100), (2, 20)])
def test_kills_at_random_moments(tmp_path, processes, least):
  alone, run = tmp_path / 'alone', Run(tmp_path / 'run')

  def start(workdir):
    return learning(workdir, steps=40, pause=0.05, processes=processes)

  seconds = undisturbed(alone, lambda: start(alone))
  LASTED.clear()
  state = final_state(alone)
  kill_often(run, lambda: start(run.workdir), least, seconds, alone, state, processes)
  if processes > 1:
    print('the other one lived on for', [f'{each:.1f}' for each in sorted(LASTED)], 's')


@pytest.mark.slow
@pytest.mark.timeout(7200)
def test_kills_of_a_model_that_trains(tiny_runs, tmp_path):
  over = {'train.steps': 20, 'train.save_every': 2, 'train.evaluate_every': 0}
  config = tiny.VIDEO | over

  def train(workdir):
    command = [sys.executable, '-m', 'launch.train', '--config=configs/digits/video.py']
    command += [f'--workdir={workdir}', *tiny.flags(config)]
    command += [f'--config.autoencoder={tiny_runs / "autoencoder"}']
    command += [f'--config.data.latents={tiny_runs / "latents"}']
    return running(workdir, command)

  alone, run = tmp_path / 'alone', Run(tmp_path / 'run')
  seconds = undisturbed(alone, lambda: train(alone))
  kill_often(run, lambda: train(run.workdir), 20, seconds, alone, tiny.final_state(alone))
