"""Encoders that are killed at any moment leave at last what an undisturbed one makes."""

import contextlib
import itertools
import os
import pathlib
import random
import shutil
import signal
import subprocess
import sys
import time

import pytest

from mgjax.data.records.reader import verify_records
from mgjax.workflows import encode as encoding
from tests import tiny
from tests.workflows.test_encode import BUCKETS, same_rows

CHILD = 'from tests.workflows.test_encode_kills import child; import sys; child(*sys.argv[1:])'


def child(runs, workdir, process, processes):
  """Encodes as one of several processes, in shards of four rows, after it said so."""
  encoding.ROWS_PER_SHARD = 4
  config = tiny.video(pathlib.Path(runs))
  print('ready', flush=True)
  encoding.encode(config, workdir, process=int(process), processes=int(processes))


@contextlib.contextmanager
def started(runs, workdir, processes):
  """Processes that share the encoding and are all about to begin; none outlives the block."""
  # One device, or a start takes longer than all the work.
  options = {
    'env': {**os.environ, 'JAX_NUM_CPU_DEVICES': '1'},
    'cwd': tiny.CHECKOUT,
    'stdout': subprocess.PIPE,
    'stderr': subprocess.STDOUT,
    'text': True,
  }
  running = []
  try:
    for process in range(processes):
      arguments = [runs, workdir, str(process), str(processes)]
      running.append(subprocess.Popen([sys.executable, '-c', CHILD, *arguments], **options))
    for process in running:
      lines = list(itertools.takewhile(lambda line: line != 'ready\n', process.stdout))
      assert process.poll() is None, ''.join(lines)
    yield running
  finally:
    for process in running:
      process.kill()
      process.wait()
      process.stdout.close()


def finish(runs, workdir):
  """Encodes what is missing in one process; returns how long that took after it was ready."""
  with started(runs, workdir, 1) as (process,):
    begun = time.monotonic()
    log, _ = process.communicate(timeout=120)
    assert process.returncode == 0, log
    return time.monotonic() - begun


def whole(workdir, expected):
  """Whether a directory has the rows of another, whole shards and nothing that was left over."""
  for split, name in BUCKETS:
    assert verify_records(workdir / split / name) == []
    kept = {path.name for path in (workdir / split / name).iterdir()}
    shards = {name for name in kept if name.endswith('.arrayrecord')}
    assert not [name for name in kept - shards if 'partial' in name or name == 'plan.json'], kept
  return same_rows(workdir, expected)


def killed(runs, tmp_path, least):
  """Kills encoders, always two at once and each at a random moment, until there were `least`."""
  expected, workdir = tmp_path / 'expected', tmp_path / 'killed'
  seconds = 1.5 * finish(runs, expected)  # two at once are slower
  chance, ended, kills = random.Random(0), 0, 0
  while kills < least:
    with started(runs, workdir, 2) as pair:
      begun = time.monotonic()
      for moment, index in sorted((chance.uniform(0, seconds), index) for index in range(2)):
        time.sleep(max(0.0, begun + moment - time.monotonic()))
        pair[index].kill()
      logs = [process.communicate()[0] for process in pair]
      codes = [process.returncode for process in pair]
    assert set(codes) <= {0, -signal.SIGKILL}, logs
    kills += codes.count(-signal.SIGKILL)
    if codes == [0, 0]:
      ended += whole(workdir, expected)
      shutil.rmtree(workdir)
  finish(runs, workdir)
  print(f'{kills} kills within {seconds:.1f} s of a beginning, {ended + 1} directories compared')
  return whole(workdir, expected)


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_killed_encoders_lose_no_row_and_double_none(tiny_runs, tmp_path):
  assert killed(tiny_runs, tmp_path, least=50)
