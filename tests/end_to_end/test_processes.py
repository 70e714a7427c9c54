"""Two real processes on this machine train, save, stop, die and resume together, as hosts would."""

import contextlib
import os
import pathlib
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
from mgjax.checkpoints.workdir import load_params
from mgjax.core.tree import named_leaves
from mgjax.data.loader import StepIterator
from mgjax.parallel import distributed
from mgjax.parallel.mesh import make_mesh
from mgjax.training.run import Hooks, run_loop
from mgjax.training.settings import RunSettings
from mgjax.training.state import State
from tests import tiny

# The first process alone would find programs in the compilation cache, and wait for the other one
# longer than Gloo lets it. So both compile, but hastily.
PROCESS = {
  'JAX_NUM_CPU_DEVICES': '2',
  'JAX_ENABLE_COMPILATION_CACHE': 'false',
  'JAX_DISABLE_MOST_OPTIMIZATIONS': 'true',
}
CONFIG = """
from tests import tiny

def get_config():
  config = tiny.autoencoder(rules='fsdp_tp_cp', train__save_every=4)
  config.mesh = {mesh}
  return config
"""
COUNT = 'from tests.end_to_end.test_processes import count_steps as f; import sys; f(sys.argv[1])'


def training(workdir, mesh, log, *more):
  """The tiny autoencoder, trained in two processes."""
  config = workdir.with_name('config.py')
  config.write_text(CONFIG.format(mesh=mesh))
  return two_processes(log, f'--config={config}', f'--workdir={workdir}', *more)


@contextlib.contextmanager
def two_processes(log, *flags):
  """The recipe that starts launch.train twice; no process outlives the block."""
  command = ['bash', 'launch/recipes/local.sh', '2', *flags]
  environment = {**os.environ, **PROCESS, 'PYTHON': sys.executable}
  with log.open('w') as file:
    recipe = subprocess.Popen(command, cwd=tiny.CHECKOUT, stderr=file, stdout=file, env=environment)
    try:
      yield recipe
    finally:
      for process in children(recipe.pid):
        os.kill(process, signal.SIGKILL)
      recipe.kill()
      recipe.wait()


@pytest.mark.slow
@pytest.mark.timeout(900)  # both starts compile in both processes
def test_two_processes_that_died_end_as_one_undisturbed(tiny_runs, tmp_path):
  workdir, log, alone = tmp_path / 'run', tmp_path / 'log', tiny_runs / 'autoencoder'
  # Each process reads half of the rows and holds half of the parameters.
  with training(workdir, {'fsdp': 4}, log) as recipe:
    wait_for(lambda: checkpoints(workdir) == [4] and steps_done(workdir) >= 5, [recipe], log)
    (process,) = children(recipe.pid, 'JAX_PROCESS_ID=1')
    os.kill(process, signal.SIGKILL)
    assert recipe.wait(timeout=120) == 128 + signal.SIGKILL, log.read_text()
  assert checkpoints(workdir) == [4]
  # Now both processes read all rows, and the pieces of the parameters lie elsewhere.
  with training(workdir, {'context': 4}, log) as recipe:
    assert recipe.wait(timeout=240) == 0, log.read_text()
  assert checkpoints(workdir) == [4, 8]

  found, expected = tiny.losses(workdir), tiny.losses(alone)
  assert found.keys() == expected.keys()
  for step, numbers in found.items():
    # Validation comes when it came there, and is the same in between.
    for name, value in numbers.items():
      assert value == pytest.approx(expected[step][name], rel=1e-5), (step, name)
  (average, meta), (other, other_meta) = load_params(workdir), load_params(alone)
  other = named_leaves(other)
  for name, leaf in named_leaves(average).items():
    if name.endswith('_key/bias'):
      continue  # softmax does not see it: its gradient is rounding, which AdamW makes steps of
    np.testing.assert_allclose(leaf, other[name], rtol=1e-4, atol=1e-5, err_msg=name)
  one, two = (each['notes']['latents']['std'] for each in (meta, other_meta))
  np.testing.assert_allclose(one, two, rtol=1e-4)
  assert list(workdir.rglob('reconstruction.png'))


@pytest.mark.slow
def test_a_step_that_ended_two_processes_is_kept_whole_and_taken_again_by_two(tmp_path):
  workdir, log = tmp_path / 'run', tmp_path / 'log'
  too_large = ('--config.optimizer.learning_rate=1e30', '--config.optimizer.warmup=0')
  with training(workdir, {'fsdp': 4}, log, *too_large) as recipe:
    assert recipe.wait(timeout=240) == 4, log.read_text()
  (folder,) = (workdir / 'faults').iterdir()
  assert log.read_text().count(f'--replay={folder}') == 2  # both say so
  assert len(list(folder.glob('batch-*'))) == 2
  with two_processes(log, f'--replay={folder}') as recipe:
    assert recipe.wait(timeout=240) == 0, log.read_text()
  said = log.read_text()
  assert said.count('loss:') == said.count('the first of them: ') == 1  # one of them prints
  assert said.count("{'index': ") == tiny.AUTOENCODER['buckets.video.batch_size']


def count_steps(workdir):
  """What one of two processes does: steps that only count, until a signal; writes down the last."""
  workdir = pathlib.Path(workdir)
  distributed.initialize()
  mesh = make_mesh({'fsdp': -1}, 'fsdp')
  state = counted(mesh)

  @jax.jit
  def add(state):
    state = jax.tree.map(lambda x: x + 1, state)
    return state, {'loss': jnp.sum(state.params['x'])}

  def step(state, batch):
    del batch
    time.sleep(0.05)
    return add(state)

  with Checkpoints(workdir / 'checkpoints') as saved:
    state = (saved.restore(state) or (state,))[0]
    rows = grain.MapDataset.source([{'x': np.zeros((8 // jax.process_count(), 1))}])
    (workdir / f'ready{jax.process_index()}').touch()
    while not (workdir / 'go').exists():
      time.sleep(0.05)
    state = run_loop(
      state,
      step,
      StepIterator(rows.repeat(), int(state.step), threads=0),
      Hooks(lambda batch: batch, lambda params: {}, None, lambda state: {}),
      RunSettings(steps=10**6, log_every=1),
      mesh=mesh,
      workdir=workdir,
      checkpoints=saved,
    )
  total = float(jnp.sum(state.params['x']))
  (workdir / f'ended{jax.process_index()}').write_text(f'{int(state.step)} {total}')


def counted(mesh):
  """A state that has counted to 0."""
  return State(place(mesh, jnp.int32(0)), {'x': place(mesh, jnp.zeros(8), 'fsdp')}, {}, {})


def place(mesh, value, *axes):
  sharding = jax.NamedSharding(mesh, jax.P(*axes))
  return jax.make_array_from_callback(value.shape, sharding, lambda index: np.asarray(value[index]))


@contextlib.contextmanager
def counting(workdir):
  """Two processes in `count_steps` that wait for a file `go`, and where they write."""
  with socket.socket() as free:
    free.bind(('127.0.0.1', 0))
    port = free.getsockname()[1]
  for name in ('go', 'ready0', 'ready1', 'ended0', 'ended1'):
    (workdir / name).unlink(missing_ok=True)
  several = {'JAX_COORDINATOR_ADDRESS': f'127.0.0.1:{port}', 'JAX_NUM_PROCESSES': '2', **PROCESS}
  log = workdir / 'log'
  with log.open('w') as file:
    processes = [
      subprocess.Popen(
        [sys.executable, '-c', COUNT, str(workdir)],
        cwd=tiny.CHECKOUT,
        env={**os.environ, **several, 'JAX_PROCESS_ID': str(index)},
        stdout=file,
        stderr=file,
      )
      for index in range(2)
    ]
  try:
    wait_for(
      lambda: all((workdir / f'ready{index}').exists() for index in range(2)), processes, log
    )
    yield processes, log
  finally:
    for process in processes:
      process.kill()
      process.wait()


def ended_at(processes, log):
  """The step that both processes ended at, without an error."""
  codes = [process.wait(timeout=200) for process in processes]
  assert codes == [0, 0], log.read_text()
  (one, total), (other, _) = ((log.parent / f'ended{i}').read_text().split() for i in range(2))
  assert one == other and float(total) == 8 * int(one)
  return int(one)


def test_a_signal_to_one_process_stops_both_at_the_same_step(tmp_path):
  with counting(tmp_path) as (processes, log):
    (tmp_path / 'go').touch()
    wait_for(lambda: steps_done(tmp_path) >= 5, processes, log)
    processes[1].send_signal(signal.SIGINT)
    step = ended_at(processes, log)
  assert checkpoints(tmp_path) == [step]
  # One process with eight devices reads what two with two each have written, and writes for them.
  with Checkpoints(tmp_path / 'checkpoints') as saved:
    state, _ = saved.restore(counted(make_mesh({'fsdp': -1}, 'fsdp')))
    assert len(state.params['x'].sharding.device_set) == 8
    assert (int(state.step), state.params['x'].tolist()) == (step, [step] * 8)
    saved.save(jax.tree.map(lambda x: x + 1, state), {})
  step += 1
  # A signal that comes before the first step of a resumed run is not forgotten.
  with counting(tmp_path) as (processes, log):
    processes[0].send_signal(signal.SIGTERM)
    time.sleep(2)
    (tmp_path / 'go').touch()
    assert step <= ended_at(processes, log) <= step + 2


def children(parent, variable=''):
  """The processes that another one started with a variable in their environment."""
  found = []
  for folder in pathlib.Path('/proc').glob('[0-9]*'):
    try:
      status = (folder / 'stat').read_text().rpartition(')')[2].split()
      variables = (folder / 'environ').read_text().split('\0')
    except OSError:
      continue  # it ended while we looked
    if int(status[1]) == parent and (not variable or variable in variables):
      found.append(int(folder.name))
  return found


def checkpoints(workdir):
  return sorted(int(p.name) for p in workdir.glob('checkpoints/*') if p.name.isdecimal())


def steps_done(workdir):
  try:
    return max(tiny.losses(workdir), default=0)
  except (OSError, ValueError):
    return 0


def wait_for(condition, processes, log):
  deadline = time.monotonic() + 240
  while not condition():
    ended = [process.poll() for process in processes]
    assert ended == [None] * len(ended) and time.monotonic() < deadline, log.read_text()
    time.sleep(0.02)
