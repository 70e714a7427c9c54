"""Months in minutes: 20,000 steps of latents with resumes, memory flat, no descriptor left open."""

import json
import os
import pathlib
import subprocess
import sys
import time

import numpy as np
import pytest

from mgjax.data.records.reader import write_records
from tests import binaries, tiny

STEPS = 20_000
MEGABYTE = 2**20


def resident(process='self'):
  """Bytes of memory that a process holds."""
  fields = pathlib.Path(f'/proc/{process}/statm').read_text().split()
  return int(fields[1]) * os.sysconf('SC_PAGE_SIZE')


def descriptors(process='self'):
  return len(os.listdir(f'/proc/{process}/fd'))


# Reads in pieces, each with an iterator of its own, and says what it saw and held after each.
READER = """
import json, os, sys
import numpy as np
from mgjax.data.loader import StepIterator
from mgjax.data.batch_order import ShapeBucket, make_batches
from mgjax.data.records.reader import Records
from tests.end_to_end.test_soak import descriptors, only_latents, resident

if __name__ == '__main__':
  folder, steps, pieces, workers = sys.argv[1], *map(int, sys.argv[2:])
  seen, memory, files = np.zeros(steps), [], []
  for first in range(0, steps, steps // pieces):
    buckets = [
      ShapeBucket(name, Records(f'{folder}/{name}'), 8, weight, only_latents)
      for name, weight in (('video', 10), ('image', 1))
    ]
    with StepIterator(make_batches(buckets, seed=0), first, workers=workers) as loader:
      for step in range(first, first + steps // pieces):
        seen[step] = next(loader)['latents'].mean(dtype=np.float64)
    memory.append(resident())
    files.append(descriptors())
  whole = make_batches(buckets, seed=0)
  some = np.linspace(0, steps - 1, 50).astype(int).tolist()
  same = [bool(seen[step] == whole[step]['latents'].mean(dtype=np.float64)) for step in some]
  print(json.dumps([memory, files, same]))
"""


def only_latents(row):
  return {'latents': row['latents']}


@pytest.mark.slow
@pytest.mark.parametrize(('workers', 'steps', 'pieces'), [(0, STEPS, 20), (1, 2000, 5)])
def test_reading_holds_no_more_memory_and_no_more_files(tmp_path, workers, steps, pieces):
  # More shards than are held open at once, of two shapes.
  for name, shape in (('video', (4, 8, 8, 16)), ('image', (1, 8, 8, 16))):
    generator = np.random.default_rng(0)
    rows = [{'latents': generator.normal(size=shape).astype(np.float16)} for _ in range(2000)]
    write_records(tmp_path / name, rows, rows_per_shard=10)
  (tmp_path / 'reader.py').write_text(READER)
  environment = {**os.environ, 'PYTHONPATH': str(tiny.CHECKOUT), 'JAX_PLATFORMS': 'cpu'}
  words = (tmp_path / 'reader.py', tmp_path, steps, pieces, workers)
  found = binaries.python(*map(str, words), env=environment)
  memory, files, same = json.loads(found.stdout)
  print([value // MEGABYTE for value in memory], files)
  assert all(same)
  # In the first half the allocator's pools fill, and the collector has not yet been around. A batch
  # of 64 kB lost every hundred steps would be 6 MB in the second.
  assert memory[-1] - memory[pieces // 2 - 1] < 3 * MEGABYTE
  assert files[-1] <= files[pieces // 2 - 1]


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_training_holds_no_more_memory_after_many_steps_and_resumes(tiny_runs, tmp_path):
  config = tiny.VIDEO | {
    'autoencoder': tiny_runs / 'autoencoder',
    'data.latents': tiny_runs / 'latents',
    'train.steps': STEPS,
    'train.log_every': 500,
    'train.save_every': 2500,
    'train.evaluate_every': 5000,
    'optimizer.learning_rate': 1e-4,
  }
  command = [
    sys.executable,
    '-m',
    'launch.train',
    '--config=configs/digits/video.py',
    f'--workdir={tmp_path}',
    *tiny.flags(config),
  ]
  environment = {**os.environ, 'JAX_PLATFORMS': 'cpu'}

  def done():
    path = tmp_path / 'metrics.jsonl'
    return tiny.metrics(tmp_path)[-1]['step'] if path.exists() else 0

  for until in (8000, STEPS):
    with subprocess.Popen(command, cwd=tiny.CHECKOUT, env=environment) as process:
      samples = {}
      while process.poll() is None and (until == STEPS or done() < until):
        time.sleep(0.5)
        if process.poll() is None and (held := resident(process.pid)):
          samples[done()] = held, descriptors(process.pid)
      if until < STEPS:
        process.kill()  # as a machine that is taken away
      else:
        assert process.wait() == 0
    first = min(step for step in samples if step >= min(samples) + 1500)
    memory, files = zip(*(samples[step] for step in sorted(samples) if step >= first), strict=True)
    print(until, [value // MEGABYTE for value in memory], files)
    # Checkpoints and validation come and go: the second half must not lie above the first.
    half = len(memory) // 2
    assert max(memory[half:]) < max(memory[:half]) + 32 * MEGABYTE
    assert max(files[half:]) <= max(files[:half]) + 2
  rows = tiny.losses(tmp_path)
  assert sorted(rows)[-1] == STEPS
