"""Months in minutes: 20,000 steps of latents with resumes, memory flat, no descriptor left open."""

import os
import pathlib
import subprocess
import sys
import time

import numpy as np
import pytest

from mgjax.data.loader import StepIterator
from mgjax.data.mixture import Bucket, make_batches
from mgjax.data.records import Records, write_records
from tests import tiny

STEPS = 20_000
MEGABYTE = 2**20


def resident(process='self'):
  """Bytes of memory that a process holds."""
  fields = pathlib.Path(f'/proc/{process}/statm').read_text().split()
  return int(fields[1]) * os.sysconf('SC_PAGE_SIZE')


def descriptors(process='self'):
  return len(os.listdir(f'/proc/{process}/fd'))


def latents(directory, shape, rows, rows_per_shard):
  class Rows:
    def __len__(self):
      return rows

    def __getitem__(self, index):
      return {'latents': np.full(shape, index, np.float16), 'caption': f'clip {index}'}

  return write_records(directory, Rows(), rows_per_shard=rows_per_shard)


def only_latents(row):
  return {'latents': row['latents']}


@pytest.mark.slow
@pytest.mark.parametrize('workers', [0, 1])
def test_reading_holds_no_more_memory_and_no_more_files_after_many_steps(tmp_path, workers):
  # More shards than are held open at once, of two shapes.
  shapes = {'video': (4, 8, 8, 16), 'image': (1, 8, 8, 16)}
  for name, shape in shapes.items():
    latents(tmp_path / name, shape, 2000, 10)
  steps = STEPS if workers == 0 else STEPS // 10
  pieces = 20 if workers == 0 else 5
  every = steps // pieces
  seen, memory, files = [], [], []
  for piece in range(pieces):
    buckets = [
      Bucket(name, Records(tmp_path / name), 8, weight, only_latents)
      for name, weight in (('video', 10), ('image', 1))
    ]
    with StepIterator(make_batches(buckets, seed=0), piece * every, workers=workers) as loader:
      for _ in range(every):
        batch = next(loader)['latents']
        seen.append((batch.shape[1], batch.sum(dtype=np.float64)))
    memory.append(resident())
    files.append(descriptors())
  whole = make_batches(buckets, seed=0)
  for step in np.linspace(0, steps - 1, 50).astype(int):
    expected = whole[int(step)]['latents']
    assert seen[step] == (expected.shape[1], expected.sum(dtype=np.float64))
  # The second piece has the allocator's pools filled; a leak of a batch of 64 kB every hundred
  # steps would be 12 MB.
  assert memory[-1] - memory[1] < 8 * MEGABYTE, [value // MEGABYTE for value in memory]
  assert files[-1] <= files[1], files


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_training_holds_no_more_memory_after_many_steps_and_resumes(tiny_runs, tmp_path):
  config = tiny.VIDEO | {
    'autoencoder': tiny_runs / 'autoencoder', 'data.latents': tiny_runs / 'latents',
    'train.steps': STEPS, 'train.log_every': 500, 'train.save_every': 2500,
    'train.evaluate_every': 5000, 'optimizer.peak': 1e-4,
  }  # fmt: skip
  command = [
    sys.executable, '-m', 'launch.train', '--config=configs/digits/video.py',
    f'--workdir={tmp_path}', *tiny.flags(config),
  ]  # fmt: skip
  environment = {**os.environ, 'JAX_PLATFORMS': 'cpu'}

  def done():
    path = tmp_path / 'metrics.jsonl'
    return tiny.metrics(tmp_path)[-1]['step'] if path.exists() else 0

  for until in (8000, STEPS):
    with subprocess.Popen(command, cwd=tiny.CHECKOUT, env=environment) as process:
      samples = {}
      while process.poll() is None and done() < (until if until < STEPS else STEPS + 1):
        samples[done()] = resident(process.pid), descriptors(process.pid)
        time.sleep(0.5)
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
