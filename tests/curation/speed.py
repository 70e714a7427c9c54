"""What an engine of curation costs beside the bare loop, and how it grows with workers.

python -m tests.curation.speed --clips=24 --rounds=2 --engine=ray

writes short clips, measures them in one process without any engine, then through the engines, in
turns, and prints clips a second, and processor seconds a clip where they can be told. A machine
that others use says less than it has: beside each pair of runs a loop that only counts is run by
one process and by two, and its growth is what the machine had to give.
"""

import argparse
import contextlib
import multiprocessing
import pathlib
import resource
import tempfile
import time

import numpy as np

from configs.curation import high_resolution
from mgjax.core.settings import unpack
from mgjax.curation import shards
from mgjax.curation.engines import plain
from mgjax.curation.measure import measure_video
from mgjax.curation.rows import Scores
from mgjax.curation.settings import CurationSettings
from mgjax.data.ingest.open_inputs import open_inputs
from tests.curation.footage import make_clip

SIDE = 128  # of the clips
_COUNTED = 20_000_000  # steps of the loop that only counts


def settings() -> CurationSettings:
  """Those of the high-resolution set."""
  return unpack(CurationSettings, high_resolution.get_config().to_dict(), 'curation')


def write_clips(folder: pathlib.Path, count: int) -> None:
  """Writes clips with captions, none of them broken."""
  for number in range(count):
    truth = make_clip(folder, number, 0, SIDE)
    if truth['kind'] == 'broken':
      (folder / truth['name']).unlink()
      (folder / truth['name']).with_suffix('.txt').unlink()


def processor() -> float:
  """Processor seconds of this process and of those that it started and that have ended."""
  used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
  return sum(each.ru_utime + each.ru_stime for each in used)


@contextlib.contextmanager
def timed(found: dict, name: str):
  """Notes wall and processor seconds."""
  wall, spent = time.monotonic(), processor()
  yield
  found.setdefault(name, []).append((time.monotonic() - wall, processor() - spent))


def bare(inputs, given: CurationSettings) -> None:
  """The same funnel without an engine."""
  for each in inputs.between(0, len(inputs)):
    measure_video(each, given.measure)


def through(engine, inputs, given: CurationSettings, workers: int) -> None:
  """All shards by an engine, from nothing."""
  with tempfile.TemporaryDirectory() as folder:
    scores = Scores(folder, {}, len(inputs), 2)
    shards.measure_all(inputs, scores, given.measure, engine, workers=workers)


def count(steps: int) -> None:
  """A loop that takes a processor and nothing else."""
  for _ in range(steps):
    pass


def counting(workers: int) -> float:
  """Loops a second of processes that only count."""
  context = multiprocessing.get_context('spawn')
  team = [context.Process(target=count, args=(_COUNTED,)) for _ in range(workers)]
  began = time.monotonic()
  for each in team:
    each.start()
  for each in team:
    each.join()
  return workers / (time.monotonic() - began)


def _main() -> None:
  parser = argparse.ArgumentParser(description=__doc__)
  parser.add_argument('--clips', type=int, default=24)
  parser.add_argument('--rounds', type=int, default=2)
  parser.add_argument('--engine', choices=('plain', 'ray'), default='plain')
  given, found, growth = parser.parse_args(), {}, []
  with tempfile.TemporaryDirectory() as folder:
    write_clips(pathlib.Path(folder), given.clips)
    inputs, config = open_inputs(folder), settings()
    measure_video(inputs[0], config.measure)  # what is loaded once
    for _ in range(given.rounds):
      with timed(found, 'no engine, 1 process'):
        bare(inputs, config)
      for workers in (1, 2):
        with timed(found, f'plain, {workers} workers'):
          through(plain.run, inputs, config, workers)
      growth.append(counting(2) / counting(1))
      if given.engine == 'ray':
        from mgjax.curation.engines import ray

        with contextlib.ExitStack() as stack:
          with timed(found, 'ray, start'):
            engine = stack.enter_context(ray.started(2))
          for workers in (1, 2):
            with timed(found, f'ray, {workers} workers'):
              through(engine, inputs, config, workers)
  for name, runs in found.items():
    wall, spent = np.median(runs, axis=0)
    each = '' if name.endswith('start') else f', {len(inputs) / wall:.3f} clips/s'
    print(f'{name}: {wall:.2f} s{each}, {spent / len(inputs):.3f} processor s a clip')
  one, two = (np.array(found[f'plain, {n} workers'])[:, 0] for n in (1, 2))
  print(f'growth of the plain engine: {np.median(one / two):.2f}')
  print(f'growth of a loop that only counts: {np.median(growth):.2f}')


if __name__ == '__main__':
  _main()
