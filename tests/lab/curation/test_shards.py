"""Jobs are all done, by whichever engine, or a sentence says why not."""

import pathlib
import threading

import pytest

from mgjax.core.errors import DataError
from mgjax.lab.curation.engines import plain
from mgjax.lab.curation.shards import Executor, finish_jobs


class Noting:
  """A worker that notes its jobs; it does not survive those above a number."""

  done: list

  def __init__(self, done, deadly, seen):
    self.done, self._deadly, self._seen = done, deadly, seen

  def __call__(self, job):
    if job >= self._deadly:
      raise DataError(f'job {job} is not to be done')
    self.done.append((job, threading.get_ident()))
    self._seen(2)

  def close(self):
    self.done.append(None)


def finish(engine, done, count=7, deadly=99, told=None):
  finish_jobs(
    lambda: [job for job in range(count) if job not in {each[0] for each in done if each}],
    iter,
    lambda job: 2,
    lambda seen: Noting(done, deadly, seen),
    Executor(engine, workers=2, progress=lambda *now: told is None or told.append(now)),
    2 * count,
  )


def test_every_job_is_done_once_and_told():
  done, told = [], []
  finish(plain.run, done, told=told)
  assert sorted(each[0] for each in done if each) == list(range(7))
  assert done.count(None) == 2, 'each worker is closed'
  assert told[0] == (0, 14) and told[-1] == (14, 14)


def test_the_first_error_ends_all():
  done = []
  with pytest.raises(DataError, match='job 3'):
    finish(plain.run, done, deadly=3)
  assert done.count(None) == 2


def test_jobs_that_an_engine_loses_are_asked_for_again_and_not_for_ever():
  done, asked = [], []

  def losing(jobs, make, workers, seen):
    jobs = list(jobs)
    asked.append(jobs)
    plain.run(iter(jobs[: 3 if len(asked) < 3 else 0]), make, workers, seen)

  with pytest.raises(DataError, match='1 shards were lost 3 times'):
    finish(losing, done)
  assert [len(jobs) for jobs in asked] == [7, 4, 1, 1, 1]


class Writing:
  """A worker that leaves a file for each job."""

  def __init__(self, folder, seen):
    self._folder, self._seen = folder, seen

  def __call__(self, job):
    if job == 'wrong':
      raise DataError('a wrong job')
    pathlib.Path(self._folder, job).touch()
    self._seen(1)

  def close(self):
    pass


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.filterwarnings('ignore::DeprecationWarning')  # of its own
def test_ray_does_the_same_jobs_and_raises_the_same_errors(tmp_path):
  pytest.importorskip('ray', reason='Ray is not installed: pip install mgjax[curation]')
  import functools

  from mgjax.lab.curation.engines import ray

  seen = []
  with ray.started(2) as engine:
    engine(iter(['a', 'b', 'c']), functools.partial(Writing, tmp_path), 2, seen.append)
    with pytest.raises(DataError, match='a wrong job'):
      engine(iter(['wrong']), functools.partial(Writing, tmp_path), 2, seen.append)
  assert sum(seen) == 3 and {path.name for path in tmp_path.iterdir()} == {'a', 'b', 'c'}
