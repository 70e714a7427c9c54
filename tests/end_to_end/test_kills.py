"""What is killed at any moment, a run or a store of records, goes on and ends in the same bytes."""

import contextlib
import json
import multiprocessing
import os
import pathlib
import random
import re
import runpy
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from typing import NamedTuple

import grain
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mgjax.apps import encode
from mgjax.core.errors import ConfigError
from mgjax.data.loader import StepIterator
from mgjax.data.media.video import write_video
from mgjax.data.records.reader import verify_records
from mgjax.data.records.writer import Share
from mgjax.parallel import distributed
from mgjax.parallel.mesh import make_mesh
from mgjax.sections.text.embeddings import embed
from mgjax.training.checkpoints.maintenance import list_checkpoints
from mgjax.training.checkpoints.manager import Checkpoints
from mgjax.training.checkpoints.workdir import open_checkpoints
from mgjax.training.monitoring.goodput import read_goodput, read_lines
from mgjax.training.monitoring.session import run_session
from mgjax.training.monitoring.watchdog import PhaseLimits
from mgjax.training.monitoring.workdir_lock import LOCK
from mgjax.training.run import Hooks, RunContext, run_loop
from mgjax.training.settings import RunSettings
from mgjax.training.state import State
from tests import tiny
from tests.apps.pairs import test_make_pairs
from tests.data.records import test_crashes
from tests.folders import files_of
from tests.sections.video import test_students

LEARN = 'from tests.end_to_end.test_kills import learn as f; import sys; f(*sys.argv[1:])'
ROWS = 16  # of a batch
HEARTBEAT = 10  # seconds; JAX takes no fewer
# Of two processes the first one alone would find programs in the cache; see test_processes.py.
SHORT = {'JAX_ENABLE_COMPILATION_CACHE': 'false', 'JAX_DISABLE_MOST_OPTIMIZATIONS': 'true'}
KILLED = -signal.SIGKILL


class Numbers:
  """Rows of a batch that tell which step and which process they are for."""

  def __init__(self, process, processes):
    self.rows = np.arange(ROWS).reshape(processes, -1)[process]

  def __len__(self):
    return 10**6

  def __getitem__(self, step):
    return {'x': np.sin(step + self.rows[:, None] / ROWS).astype(np.float32)}


def beginning(mesh):
  def place(value, *axes):
    sharding = jax.NamedSharding(mesh, jax.P(*axes))
    return jax.make_array_from_callback(value.shape, sharding, lambda at: np.asarray(value[at]))

  params = {'x': place(np.ones((ROWS, 64), np.float32), 'fsdp')}
  return State(place(np.int32(0)), params, {'mean': place(np.zeros((), np.float32))}, {})


@jax.jit
def learn_step(state, batch):
  """Chaotic, so that a wrong batch, draw or bit at any step is seen at the end."""
  noise = jax.random.uniform(jax.random.fold_in(jax.random.key(0), state.step), (ROWS, 64))
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
  limits = PhaseLimits(step=float(limit), compile=60)
  rows = grain.MapDataset.source(Numbers(jax.process_index(), jax.process_count()))
  (workdir / f'ready{jax.process_index()}').touch()
  with run_session(workdir, limits) as session, Checkpoints(workdir / 'checkpoints') as saved:
    with session.phases.during('restore'):
      state = (saved.restore(state) or (state,))[0]
    run_loop(
      state,
      step,
      StepIterator(rows, int(state.step), threads=0),
      Hooks(lambda batch: batch, lambda params: {}, lambda state: {}),
      RunSettings(steps=int(steps), log_every=1, save_every=2),
      RunContext(mesh, workdir, saved, session),
      stop_at=int(stop_at) if stop_at else None,
    )


@contextlib.contextmanager
def running(workdir, command, processes=1, log=None, **variables):
  """Processes of a run, and their log; none outlives the block."""
  with socket.socket() as free:
    free.bind(('127.0.0.1', 0))
    address = f'127.0.0.1:{free.getsockname()[1]}'
  if processes > 1:
    variables |= {'JAX_COORDINATOR_ADDRESS': address, 'JAX_NUM_PROCESSES': str(processes)}
  workdir.mkdir(parents=True, exist_ok=True)
  for ready in workdir.glob('ready*'):
    ready.unlink()
  started, log = [], log or workdir.with_name('log')
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


def learn_command(*arguments):
  return [sys.executable, '-c', LEARN, *map(str, arguments)]


def learning(workdir, steps=12, pause=0.0, more=(), processes=1, **variables):
  command = learn_command(workdir, steps, pause, *more)
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
    for process in processes:
      process.kill()
      process.wait()

  return kill


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
  state = final_state(alone)
  kill_often(run, lambda: start(run.workdir), least, seconds, alone, state, processes)


# What trains, as a configuration of the runs that it is made of.
TRAINED = {
  'model': 'tiny.video(runs, **over)',
  **{kind: f'test_students.STUDENTS[{kind!r}](runs, **over)' for kind in test_students.STUDENTS},
  'upsampler': 'tiny_upsampler.upsampler(runs, **over)',
}


@pytest.mark.slow
@pytest.mark.timeout(7200)
@pytest.mark.parametrize('name', TRAINED)
def test_kills_of_a_model_that_trains(request, tmp_path, name):
  runs = request.getfixturevalue('tiny_upsampler_runs' if name == 'upsampler' else 'tiny_runs')
  over = {'train__steps': 20, 'train__save_every': 2, 'train__evaluate_every': 0}
  (tmp_path / 'made.py').write_text(
    'import pathlib\nfrom tests import tiny, tiny_upsampler\n'
    'from tests.sections.video import test_students\n\n\ndef get_config():\n'
    f'  runs, over = pathlib.Path({str(runs)!r}), {over}\n  return {TRAINED[name]}\n'
  )
  command = [sys.executable, '-m', 'launch.train', f'--config={tmp_path}/made.py']
  alone, run = tmp_path / 'alone', Run(tmp_path / 'run')

  def train(workdir):
    return running(workdir, [*command, f'--workdir={workdir}'])

  seconds = undisturbed(alone, lambda: train(alone))
  least = 20 if name == 'model' else 6
  kill_often(run, lambda: train(run.workdir), least, seconds, alone, tiny.final_state(alone))


def test_eight_devices_then_four_then_eight_see_the_same_data(tmp_path):
  straight, run = tmp_path / 'straight', tmp_path / 'run'
  straight.mkdir()
  learn(straight, 12, 0.0)
  run.mkdir()
  learn(run, 12, 0.0, stop_at=4)
  with learning(run, more=[8], JAX_NUM_CPU_DEVICES='4') as (processes, _):
    finish(processes)
  learn(run, 12, 0.0)
  lines = read_lines(run / 'goodput.jsonl')
  assert sorted({line['from'] for line in lines if 'from' in line}) == [0, 4, 8]
  found, expected = tiny.losses(run), tiny.losses(straight)
  assert list(found) == list(expected) == list(range(1, 13))
  for step, row in found.items():  # sums over devices come in another order
    assert row['loss'] == pytest.approx(expected[step]['loss'], rel=1e-5)


@pytest.mark.slow
@pytest.mark.timeout(7200)
def test_two_starts_at_once_and_kills_at_any_moment(tmp_path, starts=50):
  """One of the two runs, whichever is killed when; the next start takes over."""
  alone, workdir, chance = tmp_path / 'alone', tmp_path / 'run', random.Random(0)
  life = undisturbed(alone, lambda: learning(alone, 120, 0.05))
  state, logs = final_state(alone), ('log0', 'log1')
  refused = killed = took_over = 0
  for number in range(starts):
    newest = max(open_checkpoints(workdir).steps(), default=0)
    with contextlib.ExitStack() as stack:
      both = []
      for log in logs:
        started = running(workdir, learn_command(workdir, 120, 0.05), log=tmp_path / log)
        both += stack.enter_context(started)[0]
        time.sleep(chance.choice((0, 0, 0.05, 0.5)))
      moment = time.monotonic() + chance.uniform(0.2, 1.1) * life
      while time.monotonic() < moment and None in [process.poll() for process in both]:
        time.sleep(0.01)
      chance.shuffle(both)
      alive = [process for process in both if process.poll() is None]
      for process in alive[: chance.choice((1, 1, 2))]:
        process.kill()
      codes = [process.wait(timeout=600) for process in both]
    said = ''.join((tmp_path / log).read_text() for log in logs)
    # Who is refused says so, and ends at once if nobody kills it meanwhile.
    sentences = len(re.findall(r'is in use by process \d+ on ', said))
    assert set(codes) <= {0, 1, KILLED} and codes.count(1) <= sentences, said
    refused, killed = refused + sentences, killed + codes.count(KILLED)
    took_over += said.count('took over')
    # One trained at a time: its lines say so, and every checkpoint on disk is whole.
    rows = tiny.metrics(workdir) if (workdir / 'metrics.jsonl').exists() else []
    steps = [row['step'] for row in rows if 'loss' in row]
    assert steps == sorted(set(steps)), steps
    saved = open_checkpoints(workdir)
    assert max(saved.steps(), default=0) >= newest
    assert not saved.steps() or not any(seen.problem for seen in list_checkpoints(saved))
    if 0 in codes:
      assert Run(workdir).same(alone, state)
      workdir.rename(tmp_path / f'ended{number}')
  print(f'{refused} refused, {killed} killed, {took_over} took over')
  assert refused and killed and took_over
  with learning(workdir, 120) as (processes, _):
    finish(processes)
  assert Run(workdir).same(alone, state) and not (workdir / LOCK).exists()


def test_a_run_that_was_taken_over_while_frozen_writes_no_checkpoint(tmp_path, monkeypatch):
  workdir, rows = tmp_path / 'run', []
  workdir.mkdir()
  (tmp_path / 'other').write_text('of another process')

  def note(*arguments):
    rows.append(arguments)
    if len(rows) == 5:  # another process, to which this one seemed dead
      os.replace(tmp_path / 'other', workdir / LOCK)

  monkeypatch.setattr('mgjax.training.log_window.LogWindow.add', note)
  with pytest.raises(ConfigError, match='not held by this process any more'):
    learn(workdir, 12, 0.0)
  assert open_checkpoints(workdir).steps() == [2, 4]
  assert (workdir / LOCK).read_text() == 'of another process'


# What processes write besides runs. Each is given the folder, what it is made of, and its share.
def write_embeddings(folder, inputs, process, processes):
  def slowly(texts):
    time.sleep(0.01)
    return [{'states': np.random.default_rng(list(text.encode())).normal(size=4)} for text in texts]

  texts = [f'a ball falls {index} times' for index in range(300)]
  options = {'encoder': 'a', 'batch_size': 8, 'rows_per_shard': 20}
  embed(str(folder), texts, slowly, share=Share(process, processes), **options)


def write_latents(folder, inputs, process, processes):
  encode.ROWS_PER_SHARD = 4
  encode.encode(tiny.video(inputs), folder)


def call(name, *words):
  sys.argv[1:] = words
  with contextlib.suppress(SystemExit):
    runpy.run_module(f'launch.{name}', run_name='__main__', alter_sys=True)


def convert(folder, inputs, process, processes):
  words = ('--rows_per_shard=1', '--reencode=gop=16', '--allow_names')
  call('data', 'convert', f'--input={inputs}', f'--output={folder}', *words)


def curate(folder, inputs, process, processes):
  slow = {
    'measure__scorers': "('motion','jitter','aesthetics')",
    'measure__aesthetics__python': 'tests.lab.curation.poison:slow',
    'limits__tries': 12,
  }
  from tests.end_to_end.test_curation import command

  call('curate', *command(inputs, folder, '--config.cut.clips_per_shard=8', **slow))


def sample_suite(folder, inputs, process, processes):
  words = (f'--workdir={inputs}/video', '--suite=digits:40', f'--out={folder}')
  call('sample', 'suite', *words, '--steps=2', '--batch_size=4', '--scale=1')


def enlarge(folder, inputs, process, processes):
  words = (f'--video={inputs}/clip_00.mp4', f'--out={folder}/0.mp4', '--steps=2')
  call('sample', 'upsample', '--workdir=digits/upsampler', *words)


def clips(place):
  for number in range(30):
    noise = np.random.default_rng(number).integers(0, 256, (8, 24, 24, 3)).astype(np.uint8)
    write_video(place / f'clip_{number:02d}.mp4', noise, 8)
  (place / 'text.mp4').write_text('no video')
  return place


def contents(folder, within='*'):
  """All files below a folder, but for what a kill leaves and is never read."""
  return files_of(folder, within, lambda path: not path.name.startswith('.'))


def sampled(folder):
  records = [json.loads(path.read_text()) for path in sorted(folder.glob('[0-9]*.json'))]
  assert len(list(folder.glob('*.mp4'))) == len(records) and not list(folder.glob('.*'))
  return {record['index']: record['pixels'] for record in records}


def enlarged(folder):
  """The digest of what is written, that of its pixels, and no half of a file."""
  assert not list(folder.glob('.*'))
  found = json.loads((folder / '0.json').read_text())
  return contents(folder, '0.mp4') | {'pixels': found['pixels']}


class Store(NamedTuple):
  """What makes it, of how many processes at once, of what, and what of it must be the same."""

  work: Callable
  processes: int = 1
  inputs: Callable = lambda place: place
  found: Callable = contents


STORES = {
  'records': Store(
    lambda folder, inputs, *share: test_crashes.write(folder, *share, seconds=0.01), 2
  ),
  'embeddings': Store(write_embeddings),
  'pairs': Store(
    lambda folder, inputs, *share: test_make_pairs.make(
      folder,
      lambda *given: test_make_pairs.brighten(*given, pause=0.01),
      share=Share(*share),
    ),
    2,
  ),
  'latents': Store(write_latents),
  'converted clips': Store(convert, 1, clips),
  'curation': Store(
    curate,
    1,
    clips,
    lambda folder: contents(folder / 'records') | contents(folder, 'funnel.json'),
  ),
  'suite': Store(sample_suite, found=sampled),
  'enlarged clip': Store(enlarge, 1, clips, enlarged),
}
QUICK = ('records', 'embeddings', 'pairs')


def work(name, folder, inputs, ready, *share):
  ready.set()
  STORES[name].work(folder, inputs, *share)


@pytest.mark.timeout(1800)
@pytest.mark.parametrize(
  ('name', 'least'),
  [
    *((name, 4) for name in QUICK),
    *(pytest.param(name, 20 if name in QUICK else 8, marks=pytest.mark.slow) for name in STORES),
  ],
)
def test_a_store_whose_writers_are_killed_ends_in_the_bytes_of_an_undisturbed_one(
  request, tmp_path, name, least
):
  store, folder, whole = STORES[name], tmp_path / 'store', tmp_path / 'whole'
  (tmp_path / 'inputs').mkdir()
  inputs = store.inputs(tmp_path / 'inputs')
  if name in ('latents', 'suite'):
    inputs = request.getfixturevalue('tiny_runs')
  context = multiprocessing.get_context('forkserver')
  context.set_forkserver_preload([__name__])

  def start(folder, processes=1):
    """Processes that share the work, from a server that has imported all of it."""
    running = []
    for process in range(processes):
      ready = context.Event()
      arguments = (name, folder, inputs, ready, process, processes)
      running.append(context.Process(target=work, args=arguments))
      running[-1].start()
      assert ready.wait(120)
    return running

  def end(running):
    for process in running:
      process.join(timeout=300)
    return [process.exitcode for process in running]

  if name not in QUICK:
    assert end(start(tmp_path / 'first')) == [0]  # which compiles
  running, begun = start(whole), time.monotonic()
  assert end(running) == [0]
  seconds, chance, kills = time.monotonic() - begun, random.Random(0), 0
  assert store.found(whole)
  while kills < least:
    running, begun = start(folder, store.processes), time.monotonic()
    moments = [(chance.uniform(0, 1.1) * seconds, process) for process in running]
    for moment, process in sorted(moments, key=lambda each: each[0]):
      time.sleep(max(0.0, begun + moment - time.monotonic()))
      process.kill()
    codes = end(running)
    assert set(codes) <= {0, KILLED}
    kills += codes.count(KILLED)
    if KILLED not in codes:
      assert store.found(folder) == store.found(whole)
      shutil.rmtree(folder)
  assert end(start(folder)) == [0]
  assert store.found(folder) == store.found(whole)
  if name in ('records', 'pairs', 'converted clips'):
    assert verify_records(folder) == []
